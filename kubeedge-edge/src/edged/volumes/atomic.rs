//! A directory of files that readers see change all at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
};

/// A file to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct File {
    pub(super) content: Vec<u8>,
    pub(super) mode: u32,
}

/// Files by their path in the volume, which stays inside of it.
pub(super) type Files = BTreeMap<PathBuf, File>;

/// The link to the directory that holds the present files.
const DATA: &str = "..data";
const NEW_DATA: &str = "..data_tmp";

/// Makes `files` the content of the volume `dir`, in one step.
///
/// The files lie in a directory of their own; `..data` links to it and each name at the top of the volume links
/// through `..data`, so that one rename changes them all. Nothing is written if nothing changed.
///
/// Upstream: kubelet, `pkg/volume/util/atomic_writer.go`, whose layout programs rely on.
pub(super) fn write(dir: &Path, files: &Files) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let data = dir.join(DATA);
    let old = fs::read_link(&data).ok();
    if old.is_some() && same(&data, files)? {
        // An earlier write may have been cut off before its links were made.
        return link_names(dir, files);
    }
    let fresh = format!("..{}", uuid::Uuid::new_v4().simple());
    let target = dir.join(&fresh);
    if let Err(error) = fill(&target, files).and_then(|()| switch(dir, &fresh)) {
        // It will be tried again and again: what is left each time would fill the disk.
        _ = fs::remove_dir_all(&target);
        return Err(error);
    }
    link_names(dir, files)?;
    remove_stale(dir, &fresh)
}

fn fill(target: &Path, files: &Files) -> io::Result<()> {
    fs::create_dir(target)?;
    fs::set_permissions(target, fs::Permissions::from_mode(0o755))?;
    for (path, file) in files {
        let path = target.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, &file.content)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(file.mode))?;
    }
    Ok(())
}

/// Makes `fresh` the present directory.
fn switch(dir: &Path, fresh: &str) -> io::Result<()> {
    let next = dir.join(NEW_DATA);
    _ = fs::remove_file(&next);
    symlink(fresh, &next)?;
    fs::rename(&next, dir.join(DATA))
}

/// What is at the top of the volume.
fn names(files: &Files) -> BTreeSet<&Path> {
    files.keys().filter_map(|path| path.components().next()).map(|part| Path::new(part.as_os_str())).collect()
}

fn link_names(dir: &Path, files: &Files) -> io::Result<()> {
    let wanted = names(files);
    for name in &wanted {
        match symlink(Path::new(DATA).join(name), dir.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        if !name.to_string_lossy().starts_with("..") && !wanted.contains(Path::new(&name)) {
            fs::remove_file(dir.join(name))?;
        }
    }
    Ok(())
}

/// Removes former directories, also of writes that were cut off.
fn remove_stale(dir: &Path, keep: &str) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("..") && name != keep && name != DATA && entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// Whether the present files are these.
fn same(data: &Path, files: &Files) -> io::Result<bool> {
    let mut seen = 0;
    let mut open = vec![PathBuf::new()];
    while let Some(inside) = open.pop() {
        let entries = match fs::read_dir(data.join(&inside)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let path = inside.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                open.push(path);
                continue;
            }
            let Some(wanted) = files.get(&path) else { return Ok(false) };
            // One that its mode keeps from us as well is written anew.
            let mode = entry.metadata()?.permissions().mode() & 0o777;
            if mode != wanted.mode || fs::read(entry.path()).ok().as_deref() != Some(&*wanted.content) {
                return Ok(false);
            }
            seen += 1;
        }
    }
    Ok(seen == files.len())
}
