//! The quickstart as its user runs it.
#![allow(clippy::unwrap_used)]

use std::process::{Command, Output};

fn quickstart(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_quickstart")).arg("--once").args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_tour_sees_every_step_work() {
    let run = quickstart(&[]);
    let (out, err) = (text(&run.stdout), text(&run.stderr));
    assert!(run.status.success(), "{out}\n{err}");
    for step in 1..=7 {
        assert!(out.contains(&format!("[{step}] ")), "step {step}: {out}");
    }
    let last = out.lines().last().unwrap();
    assert!(last.starts_with("quickstart: ok in ") && last.ends_with(" s"), "{last}");
    assert!(!out.contains('\x1b'), "no colours into a pipe");
}

#[test]
fn an_unwritable_folder_is_one_line() {
    let run = quickstart(&["--data", "/proc/kubeedge"]);
    let out = text(&run.stdout);
    assert_eq!(run.status.code(), Some(1));
    assert_eq!(out.lines().count(), 1, "{out}");
    assert!(out.starts_with("quickstart: data folder: /proc/kubeedge: "), "{out}");
}

#[test]
fn a_bad_manifest_is_one_line_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("boiler.yaml"), "kind: [Device\n").unwrap();
    let run = quickstart(&["--manifests", folder.path().to_str().unwrap()]);
    let out = text(&run.stdout);
    assert_eq!(run.status.code(), Some(1), "{out}");
    let last = out.lines().last().unwrap();
    assert!(last.starts_with("quickstart: boiler.yaml: ") && last.contains("line"), "{out}");
}
