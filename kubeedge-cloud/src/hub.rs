//! CloudHub: the end of the channel in the cloud.

pub mod bootstrap;
