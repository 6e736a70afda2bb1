//! The directory that stands for a container's file system.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Component, Path, PathBuf},
};

use crate::edged::{inside::make_dirs, runtime::Mount};

/// Makes `root` and in it a link for each mount.
pub(super) fn link_mounts(root: &Path, mounts: &[Mount]) -> io::Result<()> {
    super::state::make_private_dir(root)?;
    let mut done: Vec<PathBuf> = Vec::with_capacity(mounts.len());
    for mount in mounts {
        let inside = below_root(&mount.container_path)?;
        if done.iter().any(|other| inside.starts_with(other) || other.starts_with(&inside)) {
            return Err(refused(&mount.container_path, "is inside of another mount, or has one inside"));
        }
        link(root, &inside, &mount.host_path)?;
        done.push(inside);
    }
    Ok(())
}

fn link(root: &Path, inside: &Path, target: &Path) -> io::Result<()> {
    let mut at = root.to_owned();
    for part in inside.parent().into_iter().flat_map(Path::components) {
        at.push(part);
        match at.symlink_metadata() {
            // Of a former mount, or of the container's making: what is behind it is not ours to write to.
            Ok(found) if found.is_symlink() => fs::remove_file(&at)?,
            Ok(_) => continue,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        fs::create_dir(&at)?;
    }
    let at = root.join(inside);
    match fs::read_link(&at) {
        Ok(present) if present == target => return Ok(()),
        Ok(_) => fs::remove_file(&at)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        // A directory is in the way; one with something in it is not ours to remove.
        Err(_) => fs::remove_dir(&at)?,
    }
    symlink(target, at)
}

/// The working directory of a container, made if it is not there: below the root, or in a mount.
pub(super) fn working_dir(root: &Path, wanted: &str, mounts: &[Mount]) -> io::Result<PathBuf> {
    if wanted.is_empty() || wanted == "/" {
        return Ok(root.to_owned());
    }
    let directory = root.join(below_root(Path::new(wanted))?);
    if !directory.is_dir() {
        let mounts = mounts.iter().map(|mount| mount.host_path.as_path());
        make_dirs(&directory, &[root].into_iter().chain(mounts).collect::<Vec<_>>())?;
    }
    Ok(directory)
}

/// A container path as one below the root.
fn below_root(path: &Path) -> io::Result<PathBuf> {
    let mut inside = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(part) => inside.push(part),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return Err(refused(path, "must not contain \"..\"")),
        }
    }
    if inside.as_os_str().is_empty() { Err(refused(path, "is the root itself")) } else { Ok(inside) }
}

fn refused(path: &Path, why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("path {:?} {why}", path.display().to_string()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn mount(container: &str, host: &Path) -> Mount {
        Mount { container_path: container.into(), host_path: host.into(), read_only: false }
    }

    #[test]
    fn mounts_are_links_below_the_root_and_never_outside() {
        let dir = tempfile::tempdir().unwrap();
        let (root, volume) = (dir.path().join("root"), dir.path().join("volume"));
        fs::create_dir(&volume).unwrap();
        fs::write(volume.join("key"), "value").unwrap();
        for _ in 0..2 {
            link_mounts(&root, &[mount("/etc/app", &volume), mount("/data/", &volume)]).unwrap();
        }
        assert_eq!(fs::read_to_string(root.join("etc/app/key")).unwrap(), "value");
        assert!(link_mounts(&root, &[mount("/../../etc", &volume)]).is_err());
        assert!(link_mounts(&root, &[mount("/", &volume)]).is_err());
        let nested = link_mounts(&root, &[mount("/data", &volume), mount("/data/inner", &volume)]).unwrap_err();
        assert!(nested.to_string().contains("/data/inner"), "{nested}");
        let mounts = [mount("/etc/app", &volume)];
        assert_eq!(working_dir(&root, "/srv/x", &mounts).unwrap(), root.join("srv/x"));
        assert_eq!(working_dir(&root, "/etc/app/x", &mounts).unwrap(), root.join("etc/app/x"));
        assert!(volume.join("x").is_dir());
        assert!(working_dir(&root, "../x", &mounts).is_err());
    }

    #[test]
    fn links_that_a_container_or_a_former_mount_left_are_no_way_out() {
        let dir = tempfile::tempdir().unwrap();
        let (root, volume, outside) = (dir.path().join("root"), dir.path().join("volume"), dir.path().join("out"));
        for dir in [&root, &volume, &outside] {
            fs::create_dir(dir).unwrap();
        }
        symlink(&outside, root.join("etc")).unwrap();
        symlink(&outside, root.join("srv")).unwrap();
        link_mounts(&root, &[mount("/etc/app/cfg", &volume)]).unwrap();
        assert_eq!(fs::read_link(root.join("etc/app/cfg")).unwrap(), volume);
        assert!(working_dir(&root, "/srv/new", &[]).is_err());
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "nothing is written there");
        assert_eq!(working_dir(&root, "/srv", &[]).unwrap(), root.join("srv"), "what is there may be used");
    }
}
