//! The private directory of a mount that lasts as long as a command, and those that killed commands left behind.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::unistd::geteuid;

use crate::cli::place::temporary_folder;
use crate::error::Error;
use crate::mount::{clear_dead, view_points};
use crate::source::place;

/// An empty directory inside one that only its owner may enter. Removed when dropped.
pub struct MountFolder {
    private: PathBuf,
    point: PathBuf,
    /// Held as long as the process lives: a directory that is not held was left behind.
    _held: Flock<File>,
}

impl MountFolder {
    /// The directory is named like the source: programs show that name as the model's.
    pub fn make(source: &Path) -> anyhow::Result<Self> {
        let folder = temporary_folder();
        crate::mount::check_target(&folder)?;
        let made = private_directory(&folder);
        let (private, held) = made.map_err(|error| unusable(&folder, &error))?;
        let source = place::canonical(source)?;
        let point = private.join(source.file_name().unwrap_or("checkpoint".as_ref()));
        let place = Self {
            private,
            point,
            _held: held,
        };
        let made = fs::create_dir(&place.point).and_then(|()| open_to_owner(&place.point));
        made.map_err(|error| unusable(&place.point, &error))?;
        Ok(place)
    }

    pub fn path(&self) -> &Path {
        &self.point
    }
}

impl Drop for MountFolder {
    /// Never recursively: what is mounted here is not ours to remove.
    fn drop(&mut self) {
        let removed = fs::remove_dir(&self.point).and_then(|()| fs::remove_dir(&self.private));
        if let Err(error) = removed {
            tracing::warn!("{}: {error}; it is left behind", self.private.display());
        }
    }
}

/// Beginning of the name of a private directory; the process and a number follow.
const PREFIX: &str = "ckptfs-";

fn unusable(folder: &Path, error: &io::Error) -> Error {
    let reason = format!(
        "no folder can be made for the mount ({error}); set TMPDIR to one that can be written"
    );
    Error::mount(folder, reason)
}

/// A directory that did not exist before, so that no other user can have prepared it.
fn private_directory(folder: &Path) -> io::Result<(PathBuf, Flock<File>)> {
    let process = std::process::id();
    for number in 0.. {
        let path = folder.join(format!("{PREFIX}{process}-{number}"));
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            result => result?,
        }
        open_to_owner(&path)?;
        // Another ckptfs may have taken it for one that was left behind.
        match hold(&path) {
            Ok(held) if held.metadata()?.nlink() > 0 => return Ok((path, held)),
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            _ => {}
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Lets this user in, whatever umask was inherited.
fn open_to_owner(folder: &Path) -> io::Result<()> {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))
}

/// Locks a private directory. The kernel lets go of it with the process, however that ends.
fn hold(private: &Path) -> io::Result<Flock<File>> {
    let mut options = File::options();
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
    let directory = options
        .read(true)
        .custom_flags(flags.bits())
        .open(private)?;
    Flock::lock(directory, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| error.into())
}

/// Takes away the mounts and directories of this user's commands that were killed. Best effort: what cannot be taken away
/// hinders no other command.
pub fn clear_abandoned() {
    if !crate::mount::answers(&temporary_folder()) {
        return;
    }
    let mounted = view_points().unwrap_or_default();
    let mounted = mounted
        .iter()
        .filter_map(|point| Some(point.parent()?.to_owned()));
    let entries = fs::read_dir(temporary_folder()).into_iter().flatten();
    let lying = entries.filter_map(|entry| Some(entry.ok()?.path()));
    for private in mounted.chain(lying).filter(|path| is_named_private(path)) {
        if let Err(error) = clear(&private) {
            tracing::debug!("{}: {error:#}", private.display());
        }
    }
}

fn is_named_private(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    let numbers = name.and_then(|name| name.strip_prefix(PREFIX)?.split_once('-'));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    numbers.is_some_and(|(process, number)| is_number(process) && is_number(number))
}

fn clear(private: &Path) -> anyhow::Result<()> {
    let found = fs::symlink_metadata(private)?;
    if found.uid() != geteuid().as_raw() || found.mode() & 0o7777 != 0o700 {
        return Ok(());
    }
    let _held = hold(private)?;
    for entry in fs::read_dir(private)? {
        let point = entry?.path();
        clear_dead(&point)?;
        fs::remove_dir(&point)?;
    }
    fs::remove_dir(private)?;
    tracing::info!(
        "{}: left by a command that was killed, taken away",
        private.display()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_private_directories_are_looked_into() {
        assert!(is_named_private(Path::new("/tmp/ckptfs-12-0")));
        for name in [
            "ckptfs-12",
            "ckptfs-12-",
            "ckptfs-a-1",
            "ckptfs-1-0x",
            "other-1-0",
            "",
        ] {
            assert!(!is_named_private(&Path::new("/tmp").join(name)), "{name}");
        }
    }

    #[test]
    fn a_directory_that_is_held_stays() {
        let source = tempfile::tempdir().unwrap();
        let folder = MountFolder::make(source.path()).unwrap();
        assert!(clear(&folder.private).is_err());
        assert!(folder.path().is_dir());
    }
}
