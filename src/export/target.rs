//! Where an export goes: a name that is free, outside the source, on a filesystem with room.

use std::ffi::{CString, OsStr};
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// A directory that is to be.
#[derive(Debug)]
pub struct Target {
    /// Canonical.
    pub parent: PathBuf,
    pub path: PathBuf,
    /// The temporary directory beside it.
    pub staging: PathBuf,
}

impl Target {
    pub fn check(path: &Path, source: &Path) -> Result<Self> {
        let failed = |error: io::Error| Error::unwritable(path, &error);
        if fs::symlink_metadata(path).is_ok() {
            return Err(Error::target(
                path,
                "exists already; nothing is overwritten: name a directory that is not there yet",
            ));
        }
        let absolute = std::path::absolute(path).map_err(failed)?;
        let (Some(parent), Some(name)) = (absolute.parent(), absolute.file_name()) else {
            return Err(Error::target(
                path,
                "is no name for a new directory; name one",
            ));
        };
        let parent = fs::canonicalize(parent).map_err(|error| Error::unwritable(parent, &error))?;
        let source = fs::canonicalize(source).map_err(|error| Error::io(source, error))?;
        if parent.starts_with(&source) {
            return Err(Error::target(
                path,
                "lies inside the source; name a directory outside",
            ));
        }
        Ok(Self {
            path: parent.join(name),
            staging: parent.join(staging_name(name)),
            parent,
        })
    }

    /// Refuses where `needed` bytes do not fit.
    pub fn check_space(&self, needed: u64) -> Result<()> {
        let free =
            free_bytes(&self.parent).map_err(|error| Error::unwritable(&self.parent, &error))?;
        match needed <= free {
            true => Ok(()),
            false => Err(Error::target(
                &self.parent,
                format!(
                    "{needed} bytes are to be written, {free} are free; make room, or name another place"
                ),
            )),
        }
    }
}

fn staging_name(name: &OsStr) -> PathBuf {
    let parts = [b".".as_slice(), name.as_bytes(), b".ckptfs-export"];
    OsStr::from_bytes(&parts.concat()).into()
}

fn free_bytes(path: &Path) -> io::Result<u64> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut answer = MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: `path` ends in a zero byte, and statvfs fills the struct that it is given; it is read only on success.
    let answer = unsafe {
        match libc::statvfs(path.as_ptr(), answer.as_mut_ptr()) {
            0 => answer.assume_init(),
            _ => return Err(io::Error::last_os_error()),
        }
    };
    Ok(answer.f_bavail.saturating_mul(answer.f_frsize))
}
