//! The benchmarks are in `benches/`: one criterion target per seam. Run them with `cargo bench -p kubeedge-benches`.
//!
//! The binary `fleet` holds thousands of light edges and measures a cloud: `cargo run --release -p kubeedge-benches --bin
//! fleet -- --help`.
