//! Requirements on the system: the FUSE device, and for users who are not root a helper and permissions.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;

use crate::error::{Error, Result};
use crate::limits;

const DEVICE: &str = "/dev/fuse";
const CONFIGURATION: &str = "/etc/fuse.conf";
const CONTAINER: &str = "in a container, start it with --device /dev/fuse --cap-add SYS_ADMIN";
const HELPER_MISSING: &str = "without root, mounting needs the program fusermount3; install it, on Debian and Ubuntu with: apt install fuse3";

/// Descriptors beside one for each thread: the first connection, a source file, and what is open for a moment.
const DESCRIPTORS: usize = 6;

/// Threads and processes beside those that answer: for signals, for questions to a mount point, and who mounts for a user.
const OTHER_THREADS: usize = 6;

/// Memory of a thread: its stack, the buffer in which fuser puts the largest request, and those in which replies are put together.
const THREAD_BYTES: usize = (2 + 17 + 3) << 20;

/// Refuses where a mount cannot succeed, saying what to do.
pub fn check(allow_other: bool, threads: usize) -> Result<()> {
    open_device().map_err(|error| Error::mount(Path::new(DEVICE), device_fault(&error)))?;
    check_limits(threads).map_err(|reason| Error::mount(Path::new(DEVICE), reason))?;
    if is_root() {
        return Ok(());
    }
    if helper().is_none() {
        return Err(Error::mount(Path::new(DEVICE), HELPER_MISSING));
    }
    if allow_other && !others_may_be_allowed(&fs::read_to_string(CONFIGURATION).unwrap_or_default())
    {
        let reason = "--allow-other without root needs the line user_allow_other in this file; only root can add it";
        return Err(Error::mount(Path::new(CONFIGURATION), reason));
    }
    Ok(())
}

/// A thread that cannot start after the mount appeared would leave a view that no process serves.
fn check_limits(threads: usize) -> std::result::Result<(), String> {
    let descriptors = threads.saturating_add(DESCRIPTORS);
    let opened: io::Result<Vec<File>> = (0..descriptors).map(|_| File::open("/")).collect();
    opened.map_err(|error| {
        format!("{threads} threads need {descriptors} more file descriptors ({error}); allow more with: ulimit -n, or pass a smaller --threads")
    })?;
    let bytes = threads.saturating_mul(THREAD_BYTES);
    Vec::<u8>::new().try_reserve_exact(bytes).map_err(|_| {
        let mib = bytes >> 20;
        format!("{threads} threads need {mib} MiB more of addresses; allow more with: ulimit -v, or pass a smaller --threads")
    })?;
    start_threads(threads.saturating_add(OTHER_THREADS)).map_err(|error| {
        format!("{threads} threads cannot be started ({error}); allow more with: ulimit -u, or pass a smaller --threads")
    })
}

/// Returns the part of a cache of so many bytes that there is room for: where memory is limited, threads and replies need the most.
pub fn affordable_cache(bytes: u64) -> u64 {
    limits::memory().map_or(bytes, |limit| bytes.min(limit / 8))
}

/// Whether so many threads can run at once. They end before this returns.
fn start_threads(count: usize) -> io::Result<()> {
    let gate = Mutex::new(());
    thread::scope(|scope| {
        let _closed = gate.lock();
        (0..count).try_for_each(|_| {
            let waits = || drop(gate.lock());
            thread::Builder::new().spawn_scoped(scope, waits).map(drop)
        })
    })
}

/// Whether each thread can have a device of its own.
pub fn device_can_be_cloned() -> bool {
    open_device().is_ok()
}

/// Message for a helper that is there and may not be run.
const HELPER_DENIED: &str = "the program fusermount3 may not be run by this user; as root: chmod 4755 $(command -v fusermount3), or put the user into its group";

/// Message for a mount point that is not the user's.
const POINT_DENIED: &str = "without root, a view is mounted only where this user may write; name an empty directory of this user";

/// The program that mounts and unmounts for users who are not root.
pub fn helper() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path)
        .chain(["/usr/bin", "/bin", "/usr/sbin", "/sbin"].map(PathBuf::from));
    let candidates =
        folders.flat_map(|folder| ["fusermount3", "fusermount"].map(|name| folder.join(name)));
    candidates.into_iter().find(|program| program.is_file())
}

/// Returns the message of a refused mount that has passed [`check`].
pub fn mount_fault(error: &io::Error) -> String {
    let helper_missing = error.kind() == io::ErrorKind::NotFound;
    let said = error.to_string();
    match helper_missing || said.contains("not permitted") {
        true if is_root() => format!("mounting is not permitted, even to root; {CONTAINER}"),
        true if helper_missing => HELPER_MISSING.to_owned(),
        _ if error.kind() == io::ErrorKind::PermissionDenied && !is_root() => {
            HELPER_DENIED.to_owned()
        }
        _ if said.contains("no write access to mountpoint") => POINT_DENIED.to_owned(),
        _ => said.trim_end().to_owned(),
    }
}

pub fn is_root() -> bool {
    // SAFETY: geteuid takes nothing and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

fn open_device() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(DEVICE)
}

fn device_fault(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::ENOENT) => format!("is missing; load FUSE with: modprobe fuse; {CONTAINER}"),
        Some(libc::ENODEV | libc::ENXIO) => {
            "the kernel has no FUSE; load it with: modprobe fuse".to_owned()
        }
        Some(libc::EPERM) => format!("may not be opened; {CONTAINER}"),
        Some(libc::EACCES) => {
            format!("may not be opened by this user; as root: chmod 666 {DEVICE}; {CONTAINER}")
        }
        _ => error.to_string(),
    }
}

fn others_may_be_allowed(configuration: &str) -> bool {
    let mut lines = configuration.lines().map(str::trim);
    lines.any(|line| line == "user_allow_other")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_active_line_allows_others() {
        assert!(others_may_be_allowed(
            "# x\n  user_allow_other \nmount_max = 10\n"
        ));
        assert!(!others_may_be_allowed("#user_allow_other\n"));
        assert!(!others_may_be_allowed(""));
    }

    #[test]
    fn a_mount_point_of_another_user_has_a_remedy() {
        let said = "fusermount3: user has no write access to mountpoint /mnt";
        let fault = mount_fault(&io::Error::other(said));
        assert!(fault.contains("name an empty directory"), "{fault}");
    }

    #[test]
    fn every_fault_of_the_device_has_a_remedy() {
        let fault = |errno| device_fault(&io::Error::from_raw_os_error(errno));
        assert!(fault(libc::ENOENT).contains("--device /dev/fuse --cap-add SYS_ADMIN"));
        assert!(fault(libc::EPERM).contains("--cap-add SYS_ADMIN"));
        assert!(fault(libc::EACCES).contains("chmod 666"));
        assert!(fault(libc::ENODEV).contains("modprobe"));
    }
}
