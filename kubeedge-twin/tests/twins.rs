//! The twins as their users see them: over the store, the bus and the seam.

#![allow(clippy::unwrap_used)]

mod twins {
    mod golden;
    mod membership;
    mod rig;
    mod service;
    mod trouble;
}

#[path = "reducer/properties.rs"]
mod properties;
