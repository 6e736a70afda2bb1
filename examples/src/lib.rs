//! Shared parts of the reference binaries: command line, signals, the configuration of a site, and the guided tour.

pub mod cli;
pub mod load;
pub mod manifests;
pub mod observe;
pub mod process;
pub mod quickstart;
pub mod site;

/// The example of the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

/// An error and its sources in one line.
pub fn one_line(error: &(dyn std::error::Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let text = error.to_string();
        // Some crates repeat their source in their own text.
        if !line.contains(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        source = error.source();
    }
    line.replace('\n', " ")
}
