//! Peers that mean no good: the cloud stays up, stays small, and goes on serving the others.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "hostile/frames.rs"]
mod frames;
#[path = "hostile/handshakes.rs"]
mod handshakes;
#[path = "hostile/sloths.rs"]
mod sloths;
#[path = "cloud/support.rs"]
#[expect(dead_code, reason = "shared with the other tests of the cloud")]
mod support;

/// Memory of this process, in bytes. Each test has a process of its own.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = status.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

const MIB: u64 = 1024 * 1024;
