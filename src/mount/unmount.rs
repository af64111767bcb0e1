//! `ckptfs umount`: takes a view away, and says why another mount stays.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use super::detach::{When, detach_soon};
use super::point;
use crate::error::{Error, Result};
use crate::mountinfo;
use crate::text::quoted;

/// Longest time that a mount may take to vanish from the table after the kernel agreed.
const PATIENCE: Duration = Duration::from_secs(5);

/// `ckptfs umount`: takes away the view mounted on `path`, a dead one too.
pub fn unmount(path: &Path, when: When) -> Result<()> {
    let refuse = |reason: &str| Err(Error::mount(path, reason));
    if let Err(error) = mountinfo::all() {
        return refuse(&format!(
            "the table of mounts cannot be read ({error}); mount /proc"
        ));
    }
    let point = point::located(path)?;
    match mountinfo::at(&point) {
        None => return refuse("nothing is mounted here; ckptfs status lists what is"),
        Some(entry) if !entry.is_view() => {
            return refuse(&format!(
                "is a mount of another kind ({}), which umount(8) takes away",
                entry.kind
            ));
        }
        Some(_) => {}
    }
    match detach_soon(&point, when) {
        Ok(()) => wait_until_gone(&point),
        // Another process was faster.
        Err(_) if mountinfo::at(&point).is_none() => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => refuse(&format!(
            "is in use; stop its readers (fuser -vm {} names them), or give --lazy to let it end with the last",
            quoted(&point)
        )),
        Err(error) => refuse(&denial(path, &point).unwrap_or_else(|| error.to_string())),
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
