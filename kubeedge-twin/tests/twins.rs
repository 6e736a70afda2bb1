//! The twins as their users see them: the reducer, and the service over store, bus and seam.

#![allow(clippy::unwrap_used)]

mod twins {
    mod golden;
    mod membership;
    mod reducer;
    mod rig;
    mod service;
    mod trouble;
}
