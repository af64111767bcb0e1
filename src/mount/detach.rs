//! Detaching a mount: by umount2 where that is allowed, else by fusermount3.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::requirements;

/// Time in which a mount may be in use without being taken for used.
const GLANCE: Duration = Duration::from_millis(300);

/// When a mount goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Now, or not at all while it is in use.
    Unused,
    /// Its name now, the mount itself with its last user.
    Lazily,
}

/// A glance of another program, such as that of `ckptfs status`, is no use.
pub fn detach_soon(point: &Path, when: When) -> io::Result<()> {
    let start = Instant::now();
    loop {
        match detach(point, when) {
            Err(error)
                if error.kind() == io::ErrorKind::ResourceBusy && start.elapsed() < GLANCE =>
            {
                std::thread::sleep(Duration::from_millis(20));
            }
            result => return result,
        }
    }
}

/// Detaches whatever is mounted on `point`. `ResourceBusy` while it is in use.
pub fn detach(point: &Path, when: When) -> io::Result<()> {
    match umount2(point, when) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => ask_helper(point, when),
        result => result,
    }
}

fn umount2(point: &Path, when: When) -> io::Result<()> {
    let target = CString::new(point.as_os_str().as_bytes())?;
    let lazily = match when {
        When::Unused => 0,
        When::Lazily => libc::MNT_DETACH,
    };
    // SAFETY: `target` is a string that ends in a zero byte and outlives the call.
    match unsafe { libc::umount2(target.as_ptr(), libc::UMOUNT_NOFOLLOW | lazily) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn ask_helper(point: &Path, when: When) -> io::Result<()> {
    let helper = requirements::helper().ok_or_else(|| {
        io::Error::other("unmounting without root needs the program fusermount3 (Debian: fuse3)")
    })?;
    let flags = match when {
        When::Unused => "-u",
        When::Lazily => "-uz",
    };
    let mut command = Command::new(helper);
    command.args([flags, "--"]).arg(point);
    let output = command.env("LC_ALL", "C").stdin(Stdio::piped()).output()?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    match output.status.success() {
        true => Ok(()),
        false if complaint.contains("busy") => Err(io::ErrorKind::ResourceBusy.into()),
        false => Err(io::Error::other(complaint.trim_end().to_owned())),
    }
}
