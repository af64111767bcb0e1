//! Where an export goes: a name that is free, outside the source, on a filesystem with room.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::fstatvfs;

use crate::destination::Directory;
use crate::error::{Error, Result};
use crate::source::place;

/// A directory that is to be.
#[derive(Debug)]
pub struct Target {
    /// Where it is to be.
    pub parent: Directory,
    pub name: OsString,
    /// Canonical.
    pub path: PathBuf,
    /// Name of the temporary directory beside it.
    pub staging: OsString,
}

impl Target {
    pub fn check(path: &Path, source: &Path) -> Result<Self> {
        let failed = |error: io::Error| Error::unwritable(path, &error);
        if fs::symlink_metadata(path).is_ok() {
            return Err(is_taken(path));
        }
        let absolute = std::path::absolute(path).map_err(failed)?;
        let (Some(parent), Some(name)) = (absolute.parent(), absolute.file_name()) else {
            return Err(Error::target(
                path,
                "is no name for a new directory; name one",
            ));
        };
        let parent = fs::canonicalize(parent).map_err(|error| Error::unwritable(parent, &error))?;
        let source = place::canonical(source).map_err(|error| Error::io(source, error))?;
        if parent.starts_with(&source) {
            return Err(Error::target(
                path,
                "lies inside the source; name a directory outside",
            ));
        }
        // A link that took the place of a directory since is no directory.
        let held = Directory::open(&parent).map_err(|error| Error::unwritable(&parent, &error))?;
        Ok(Self {
            path: parent.join(name),
            staging: staging_name(name),
            name: name.to_owned(),
            parent: held,
        })
    }

    /// Where the temporary directory lies, for messages.
    pub fn staging_path(&self) -> PathBuf {
        self.path.with_file_name(&self.staging)
    }

    /// The error of a name that is not free.
    pub fn is_taken(&self) -> Error {
        is_taken(&self.path)
    }

    /// Refuses where `needed` bytes do not fit.
    pub fn check_space(&self, needed: u64) -> Result<()> {
        let place = self.path.parent().unwrap_or(&self.path);
        let told = fstatvfs(&self.parent);
        let told = told.map_err(|error| Error::unwritable(place, &error.into()))?;
        let free = told.blocks_available().saturating_mul(told.fragment_size());
        match needed <= free {
            true => Ok(()),
            false => Err(Error::target(
                place,
                format!(
                    "{needed} bytes are to be written, {free} are free; make room, or name another place"
                ),
            )),
        }
    }
}

fn is_taken(path: &Path) -> Error {
    Error::target(
        path,
        "exists already; nothing is overwritten: name a directory that is not there yet",
    )
}

fn staging_name(name: &OsStr) -> OsString {
    let parts = [b".".as_slice(), name.as_bytes(), b".ckptfs-export"];
    OsStr::from_bytes(&parts.concat()).into()
}
