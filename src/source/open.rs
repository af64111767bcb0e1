//! Opening a source file where its path says and nowhere else, whatever is put there meanwhile.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};

use crate::error::{Error, Result};

/// Opens the regular file at `path`, of which no part may be a link, for reading and with `flags`.
pub(super) fn open_regular(path: &Path, flags: OFlag) -> Result<File> {
    let irregular = || Error::malformed(path, "not a regular file");
    let failed = |error: io::Error| match error.raw_os_error() {
        Some(libc::ELOOP) => irregular(),
        _ => Error::io(path, error),
    };
    // FIFOs, devices and sockets are not even opened.
    let found = std::fs::symlink_metadata(path).map_err(failed)?;
    if !found.is_file() {
        return Err(irregular());
    }
    let file = open_unlinked(path, flags).map_err(failed)?;
    match file.metadata().map_err(failed)?.is_file() {
        true => Ok(file),
        false => Err(irregular()),
    }
}

/// Flags with which opening any file is harmless.
const ALWAYS: OFlag = OFlag::O_CLOEXEC
    .union(OFlag::O_NONBLOCK)
    .union(OFlag::O_NOCTTY);

fn open_unlinked(path: &Path, flags: OFlag) -> io::Result<File> {
    let how = OpenHow::new()
        .flags(ALWAYS | flags)
        .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
    match openat2(AT_FDCWD, path, how) {
        Ok(file) => Ok(file.into()),
        // Unknown before Linux 5.6, and to older sandboxes.
        Err(Errno::ENOSYS | Errno::EPERM) => open_and_compare(path, flags),
        Err(error) => Err(error.into()),
    }
}

/// Opens first and asks then where that led.
fn open_and_compare(path: &Path, flags: OFlag) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags((ALWAYS | OFlag::O_NOFOLLOW | flags).bits())
        .open(path)?;
    let opened = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    match opened == path {
        true => Ok(file),
        false => Err(io::Error::from_raw_os_error(libc::ELOOP)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn no_part_of_a_path_may_be_a_link() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().canonicalize().unwrap().join(name);
        fs::create_dir(at("folder")).unwrap();
        fs::write(at("folder/file"), "").unwrap();
        symlink("folder", at("up")).unwrap();
        symlink("folder/file", at("link")).unwrap();
        for open in [open_unlinked, open_and_compare] {
            assert!(open(&at("folder/file"), OFlag::empty()).is_ok());
            for path in ["link", "up/file"] {
                let error = open(&at(path), OFlag::empty()).unwrap_err();
                assert_eq!(error.raw_os_error(), Some(libc::ELOOP), "{path}");
            }
        }
        for path in ["folder", "link", "up/file"] {
            let error = open_regular(&at(path), OFlag::empty())
                .unwrap_err()
                .to_string();
            assert!(error.contains("not a regular file"), "{error}");
        }
    }
}
