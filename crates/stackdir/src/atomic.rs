//! Files and folders that are either wholly there or not at all, whenever the power fails.
//!
//! Always the same dance: write under a hidden name beside the target, fsync, rename, fsync the
//! folder. Whoever reads ignores hidden names; [`sweep`] removes what a crash left behind.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use fs_err as fs;

#[cfg(test)]
use crate::crash::point;

#[cfg(not(test))]
fn point() {}

/// Left-overs older than this belong to nobody.
const STALE: Duration = Duration::from_secs(3600);

/// Puts `bytes` at `target`, replacing what is there and keeping its permissions.
pub(crate) fn write_file(target: &Path, bytes: &[u8]) -> io::Result<()> {
    let temp = hidden(target, "tmp");
    let written = write_new(&temp, bytes, fs::metadata(target).ok().map(|m| m.permissions())).and_then(|()| {
        point();
        fs::rename(&temp, target)
    });
    if written.is_err() {
        let _ = fs::remove_file(&temp);
        return written;
    }
    point();
    sync_parent(target)
}

/// Makes the folder `target` with these files in it. The folder must not exist, or be empty.
pub(crate) fn create_folder(target: &Path, files: &[(&str, &[u8])]) -> io::Result<()> {
    let temp = hidden(target, "tmp");
    fs::create_dir(&temp)?;
    let fill = || {
        for (name, bytes) in files {
            point();
            write_new(&temp.join(name), bytes, None)?;
        }
        sync(&temp)?;
        point();
        fs::rename(&temp, target)
    };
    if let Err(error) = fill() {
        let _ = fs::remove_dir_all(&temp);
        return Err(error);
    }
    point();
    sync_parent(target)
}

/// Removes a folder, or the link to one.
pub(crate) fn remove_folder(target: &Path) -> io::Result<()> {
    let doomed = hidden(target, "del");
    point();
    fs::rename(target, &doomed)?;
    point();
    sync_parent(target)?;
    point();
    if fs::symlink_metadata(&doomed)?.is_dir() { fs::remove_dir_all(&doomed) } else { fs::remove_file(&doomed) }
}

/// Makes `path` and what is missing above it, durably.
pub(crate) fn create_dirs(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        create_dirs(parent)?;
    }
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
        Ok(()) => sync_parent(path),
    }
}

/// Removes left-overs of crashed writers from `folder`; only under the lock. What cannot be removed
/// does no harm, so nothing is reported.
pub(crate) fn sweep(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let ours = name.to_str().is_some_and(|name| name.starts_with('.') && (name.contains(".tmp-") || name.contains(".del-")));
        let age = || entry.metadata().ok()?.modified().ok().and_then(|time| SystemTime::now().duration_since(time).ok());
        if ours && age().is_some_and(|age| age > STALE) {
            let path = entry.path();
            let _ = if entry.file_type().is_ok_and(|t| t.is_dir()) { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        }
    }
}

fn write_new(path: &Path, bytes: &[u8], permissions: Option<std::fs::Permissions>) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    point();
    let (head, tail) = bytes.split_at(bytes.len() / 2);
    file.write_all(head)?;
    point();
    file.write_all(tail)?;
    if let Some(permissions) = permissions {
        file.set_permissions(permissions)?;
    }
    file.sync_all()
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync(parent),
        _ => sync(Path::new(".")),
    }
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn hidden(target: &Path, tag: &str) -> PathBuf {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    target.with_file_name(format!(".{name}.{tag}-{:016x}", rand::random::<u64>()))
}
