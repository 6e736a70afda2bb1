//! Shared parts of the reference binaries: command line, signals, the configuration of a site, and the guided tour.

pub mod cli;
pub mod quickstart;
pub mod site;
