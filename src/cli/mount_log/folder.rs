//! The state folder of a user, and which logs in it are kept.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::unistd::{UnlinkatFlags, User, geteuid, unlinkat};

use super::name::{ENDING, is_log_of};
use crate::cli::place::temporary_folder;
use crate::destination::Directory;

/// Logs of ended mounts that are kept of one mount point.
pub const KEPT: usize = 3;

/// Age after which the log of an ended mount is removed.
const OLD: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Returns a folder for logs outside of `apart`, made where it is missing: in the state folder of XDG, or else in the folder for
/// temporary files.
pub fn folder(apart: &[&Path]) -> io::Result<PathBuf> {
    let mut refused = io::Error::from(io::ErrorKind::NotFound);
    for folder in candidates() {
        match made(&folder) {
            Ok(folder) if !apart.iter().any(|path| folder.starts_with(path)) => return Ok(folder),
            Ok(_) => {}
            Err(error) => refused = io::Error::new(error.kind(), place(&folder, &error)),
        }
    }
    Err(refused)
}

fn place(folder: &Path, error: &io::Error) -> String {
    format!("{}: {error}", folder.display())
}

/// Where this user's logs may lie, the usual place first.
pub fn candidates() -> Vec<PathBuf> {
    let state = variable("XDG_STATE_HOME").or_else(|| Some(home()?.join(".local/state")));
    let temporary = temporary_folder().join(format!("ckptfs-log-{}", geteuid()));
    let state = state.map(|folder| folder.join("ckptfs"));
    state.into_iter().chain([temporary]).collect()
}

fn variable(name: &str) -> Option<PathBuf> {
    let path = PathBuf::from(std::env::var_os(name)?);
    path.is_absolute().then_some(path)
}

/// The home of this user. Under `sudo`, HOME may be another's.
fn home() -> Option<PathBuf> {
    let own =
        |home: &PathBuf| fs::metadata(home).is_ok_and(|home| home.uid() == geteuid().as_raw());
    let registered = || Some(User::from_uid(geteuid()).ok()??.dir);
    variable("HOME").filter(own).or_else(registered)
}

/// Makes `folder` and those above it, for this user alone whatever umask was inherited. One that another user owns or may write
/// to is none of ours.
fn made(folder: &Path) -> io::Result<PathBuf> {
    crate::mount::check_source(folder).map_err(|error| io::Error::other(error.to_string()))?;
    let missing: Vec<_> = folder
        .ancestors()
        .take_while(|path| !path.exists())
        .collect();
    let own = [0, geteuid().as_raw()];
    let existing = folder
        .ancestors()
        .nth(missing.len())
        .and_then(|path| fs::metadata(path).ok());
    if !existing.is_some_and(|existing| own.contains(&existing.uid())) {
        return Err(io::Error::other("belongs to another user"));
    }
    for folder in missing.into_iter().rev() {
        DirBuilder::new().mode(0o700).create(folder)?;
        fs::set_permissions(folder, Permissions::from_mode(0o700))?;
    }
    let found = fs::metadata(folder)?;
    match found.uid() == geteuid().as_raw() && found.mode() & 0o722 == 0o700 {
        true => fs::canonicalize(folder),
        false => Err(io::Error::other("is not this user's alone to write to")),
    }
}

/// Removes the logs of ended mounts that are old, or that later ones of the same `point` follow.
pub fn prune(folder: &Path, held: &Directory, point: &Path) {
    let mut logs = logs(folder);
    logs.sort_by_key(|(time, _)| std::cmp::Reverse(*time));
    let mut of_point = 0;
    for (time, name) in logs {
        let is_old = SystemTime::now()
            .duration_since(time)
            .is_ok_and(|age| age > OLD);
        of_point += usize::from(is_log_of(&name, point));
        if is_old || of_point > KEPT && is_log_of(&name, point) {
            remove(held, &name).ok();
        }
    }
}

/// The logs in a folder, with the time of the last line of each.
pub fn logs(folder: &Path) -> Vec<(SystemTime, OsString)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let logs = entries.filter_map(|entry| {
        let name = entry.file_name();
        let modified = entry.metadata().ok()?.modified().ok()?;
        name.to_string_lossy()
            .ends_with(ENDING)
            .then_some((modified, name))
    });
    logs.collect()
}

/// Removes a log that no mount holds.
fn remove(folder: &Directory, name: &OsStr) -> io::Result<()> {
    let log = folder.open_file(Path::new(name), OFlag::O_RDONLY | OFlag::O_NONBLOCK, 0)?;
    let _held = Flock::lock(log, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| error)?;
    Ok(unlinkat(folder, name, UnlinkatFlags::NoRemoveDir)?)
}
