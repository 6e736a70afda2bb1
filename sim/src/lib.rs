//! A cloud, its edges and a Kubernetes API in simulated time, with everything going wrong that a seed says.
//!
//! [`run`] plays a [`Scenario`]: a real cloud ([`CloudCore`](kubeedge_cloud::cloud::CloudCore): controllers, resync, ledger,
//! hub) and real edges (hub driver, dispatcher, outbox sender) on the hosts of a `turmoil` network. What lies beyond them
//! are doubles that can fail in every way that the real ones can:
//!
//! * [`Api`]: a Kubernetes API with lists, watches and versions, which carries out what it got whether or not the caller
//!   still lives, loses answers, refuses, hangs, cuts and delays watches, and forgets old versions;
//! * [`Disk`]: the metadata store of an edge, whose commits are durable at one moment and known at a later one; a crash
//!   in between, or before, loses what a power cut would, and a full disk takes nothing;
//! * the network: latency, stalls, cuts in one direction or both, crashes with and without a last word to the peer.
//!
//! Everything that counts is written into a [`History`], and [`check`] looks at the whole of it:
//!
//! 1. **No acknowledged loss.** An acknowledgement of the edge leaves after the commit of what it acknowledges; an entry of
//!    the outbox goes away after the API has its report, or a newer one; a record of the ledger is written after the
//!    acknowledgement.
//! 2. **No stale overwrite.** Per object, versions at the edge never go backwards; nothing that was deleted comes back;
//!    reports in the API never go backwards.
//! 3. **No duplicate effect.** What an edge has already is not stored again.
//! 4. **Convergence.** Within [`BOUND`] of the end of all faults, every edge has the truth of its node and nothing else, the
//!    ledger says so, every outbox is empty, every report is in the API; and then nothing moves any more. One thing is
//!    let pass, as the protocol of KubeEdge has no remedy: an edge without the extension `inventory` differs in an object
//!    about which its last acknowledgement was lost.
//!
//! # Determinism
//! A seed decides the scenario, the network, all doubles, and the random numbers of our code (`fastrand`). Hosts run on one
//! thread in simulated time. It does not decide the ids of messages, the certificates, the order of hash maps, and which
//! branch `tokio::select!` looks at first where it does not say `biased`: so most seeds, but not all, have one history.
//! A test compares what has to be the same: what is done to the world, and that no promise is broken. A seed that fails
//! leaves its history in a file, as its replay may go well.
//!
//! # What differs from real networks
//! `turmoil` has no retransmission: what is sent into a cut is lost for good. So a connection that lives through a cut is
//! of no more use, and at its end, or after [`USER_TIMEOUT`], the edge's end of it is reset, as `TCP_USER_TIMEOUT` does to
//! the sockets of real edges. Until then it is half open. A stall, in contrast, delivers everything in the end.

mod api;
mod check;
mod clock;
mod cloud;
mod disk;
mod edge;
mod history;
mod link;
mod mutation;
mod reporter;
mod scenario;
mod truth;
mod world;

pub use self::{
    api::{Api, Place, Trouble},
    check::{Violation, check},
    disk::Disk,
    history::{Copy, Entry, Event, History},
    mutation::Mutation,
    scenario::{Action, Host, LinkFault, Moment, Scenario, Work},
    world::{BOUND, Outcome, USER_TIMEOUT, run},
};
