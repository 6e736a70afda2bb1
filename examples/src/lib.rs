//! Shared parts of the reference binaries: command line, signals, the configuration of a site, and the guided tour.

pub mod cli;
pub mod load;
pub mod manifests;
pub mod mapper;
pub mod observe;
pub mod process;
pub mod quickstart;
pub mod site;

use kubeedge_core::service::Causes;

/// The example of the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

/// An error and its sources in one line.
pub fn one_line(error: &(dyn std::error::Error + 'static)) -> String {
    Causes(error).to_string().replace('\n', " ")
}
