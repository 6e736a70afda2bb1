//! The checker finds what is broken on purpose.

use kubeedge_sim::{Mutation, Scenario, run};

/// Plays seeds with a broken part until a promise of that name is broken.
fn finds(mutation: Mutation, promise: &str) {
    let mut others = Vec::new();
    for seed in 0..40 {
        let outcome = run(&Scenario::draw(seed).mutated(mutation));
        if outcome.violations.iter().any(|violation| violation.promise == promise) {
            return;
        }
        others.extend(outcome.violations.into_iter().map(|violation| violation.to_string()));
    }
    panic!("{mutation:?} never breaks {promise:?}, only {others:?}");
}

#[test]
fn an_edge_that_acknowledges_before_the_commit_is_found() {
    finds(Mutation::AcknowledgesEarly, "no acknowledged loss");
}

#[test]
fn a_disk_that_tells_of_commits_before_they_are_durable_is_found() {
    finds(Mutation::DiskLies, "no acknowledged loss");
}

#[test]
fn a_report_that_is_taken_for_delivered_and_was_not_is_found() {
    finds(Mutation::ForgesAnswers, "no acknowledged loss");
}

#[test]
fn an_edge_that_stores_what_it_has_already_is_found() {
    finds(Mutation::StoresAnything, "no duplicate effect");
}

#[test]
fn a_disk_that_goes_back_to_an_older_version_is_found() {
    finds(Mutation::DiskReverts, "no stale overwrite");
}

#[test]
fn a_disk_that_loses_a_record_is_found() {
    finds(Mutation::DiskForgets, "convergence");
}
