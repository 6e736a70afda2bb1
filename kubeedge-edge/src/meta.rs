//! What the node must still know after a power cut: the SQLite store, and following what is in a store.
//!
//! * [`SqliteStore`] keeps records in one file. What it has acknowledged survives a power cut.
//! * [`Follower`] gives all records of a selector and then every change, on any
//!   [`MetaStore`](kubeedge_core::meta::MetaStore).
//!
//! Upstream: `edge/pkg/metamanager`.

mod follow;
mod sqlite;

pub use self::{
    follow::{Change, Follower},
    sqlite::{Durability, SqliteError, SqliteOptions, SqliteStore},
};
