//! Taking a mount away: by umount2 where that is allowed, else by fusermount3.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{point, requirements};
use crate::error::{Error, Result};
use crate::mountinfo;
use crate::text::quoted;

/// Longest time that a mount may take to vanish from the table after the kernel agreed.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a mount may be in use without being taken for used.
const GLANCE: Duration = Duration::from_millis(300);

/// When a mount goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Now, or not at all while someone uses it.
    Unused,
    /// Its name now, the mount itself with its last user.
    Lazily,
}

/// `ckptfs umount`: takes away the view mounted on `path`, a dead one too.
pub fn unmount(path: &Path, when: When) -> Result<()> {
    let refuse = |reason: &str| Err(Error::mount(path, reason));
    if let Err(error) = mountinfo::all() {
        return refuse(&format!(
            "the table of mounts cannot be read ({error}); mount /proc"
        ));
    }
    let point = resolve(path)?;
    match mountinfo::at(&point) {
        None => return refuse("nothing is mounted here; ckptfs status lists what is"),
        Some(entry) if !entry.is_view() => {
            return refuse(&format!(
                "is a mount of another kind ({}); left alone",
                entry.kind
            ));
        }
        Some(_) => {}
    }
    match detach_soon(&point, when) {
        Ok(()) => wait_until_gone(&point),
        // Another process was faster.
        Err(_) if mountinfo::at(&point).is_none() => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => refuse(
            "is in use; stop its readers (fuser -vm names them), or give --lazy to let it end with the last",
        ),
        Err(error) => refuse(&denial(path, &point).unwrap_or_else(|| error.to_string())),
    }
}

fn resolve(path: &Path) -> Result<PathBuf> {
    // No attributes are asked for: a view whose process is stopped would not answer.
    match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let reason = "there is no such directory; ckptfs status lists what is mounted";
            Err(Error::mount(path, reason))
        }
        _ => point::resolve(path),
    }
}

/// Why the view of another user stays.
fn denial(path: &Path, point: &Path) -> Option<String> {
    let own = nix::unistd::geteuid().as_raw();
    let owner = mountinfo::at(point)?
        .owner()
        .filter(|owner| *owner != own && own != 0)?;
    let command = format!("ckptfs umount {}", quoted(path));
    Some(match owner {
        0 => format!("was mounted by root; as root: {command}"),
        _ => format!("was mounted by user {owner}; as that user or root: {command}"),
    })
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
    let output = command.env("LC_ALL", "C").stdin(Stdio::null()).output()?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    match output.status.success() {
        true => Ok(()),
        false if complaint.contains("busy") => Err(io::ErrorKind::ResourceBusy.into()),
        false => Err(io::Error::other(complaint.trim_end().to_owned())),
    }
}

fn wait_until_gone(point: &Path) -> Result<()> {
    let start = Instant::now();
    while mountinfo::at(point).is_some_and(|entry| entry.is_view()) {
        if start.elapsed() > PATIENCE {
            return Err(Error::mount(
                point,
                "is still mounted; another view lies below",
            ));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
