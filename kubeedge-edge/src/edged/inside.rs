//! Directories that are made on behalf of pods, and never elsewhere than pods may write.

use std::{fs, io, path::Path};

/// Makes the directory `path` if there is nothing, with those above it. Links on the way are followed as long as they
/// stay below one of `bases`. Blocks.
///
/// # Errors
/// [`io::ErrorKind::InvalidInput`] if it is, or would come to be, outside of all `bases`.
pub(crate) fn make_dirs(path: &Path, bases: &[&Path]) -> io::Result<()> {
    // What is there already decides where the rest would be made; a link that leads nowhere is there as well.
    let there = path.ancestors().find(|part| part.symlink_metadata().is_ok()).unwrap_or(path);
    let real = there.canonicalize()?;
    if !bases.iter().any(|base| base.canonicalize().is_ok_and(|base| real.starts_with(base))) {
        let why = format!("path {:?} leads to {:?}, which is outside", path.display().to_string(), real.display());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    if there == path { Ok(()) } else { fs::create_dir_all(path) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn nothing_is_made_behind_a_link_that_leads_out() {
        let dir = tempfile::tempdir().unwrap();
        let (inside, outside) = (dir.path().join("in"), dir.path().join("out"));
        fs::create_dir_all(inside.join("deep")).unwrap();
        fs::create_dir(&outside).unwrap();
        symlink("deep", inside.join("near")).unwrap();
        symlink(&outside, inside.join("far")).unwrap();
        symlink("../out/later", inside.join("dangling")).unwrap();
        let make = |path: &str| make_dirs(&inside.join(path), &[&inside]);
        make("a/b").unwrap();
        make("near/c").unwrap();
        assert!(inside.join("a/b").is_dir() && inside.join("deep/c").is_dir());
        for path in ["far", "far/new", "far/new/er", "dangling", "dangling/new", "../out/new"] {
            assert!(make(path).is_err(), "{path}");
        }
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
        make_dirs(&inside.join("far/new"), &[&inside, &outside]).unwrap();
        assert!(outside.join("new").is_dir());
    }
}
