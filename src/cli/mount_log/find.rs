//! The process that serves a mount, and its log: found by the log that the process has open.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::folder::{candidates, logs};
use super::name::is_log_of;
use crate::mount::answers;

/// A process that has the log of a mount open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountProcess {
    pub pid: u32,
    pub owner: u32,
    /// The log under the name that it has in the folder.
    pub log: PathBuf,
    /// The log by the process' own descriptor, whatever has become of its name.
    pub opened: PathBuf,
}

impl MountProcess {
    /// Whether it serves the view that `owner` mounted on `point`.
    pub fn serves(&self, point: &Path, owner: Option<u32>) -> bool {
        let name = self.log.file_name().unwrap_or_default();
        is_log_of(name, point) && owner.is_none_or(|owner| owner == self.owner)
    }
}

/// The processes of this mount namespace that have a log open, as far as this user may look into them.
pub fn processes() -> Vec<MountProcess> {
    let own = fs::read_link("/proc/self/ns/mnt").ok();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let folders = entries.map(|entry| entry.path());
    let inside = folders.filter(|folder| fs::read_link(folder.join("ns/mnt")).ok() == own);
    inside.filter_map(|folder| process(&folder)).collect()
}

fn process(folder: &Path) -> Option<MountProcess> {
    let pid = folder.file_name()?.to_str()?.parse().ok()?;
    let owner = fs::metadata(folder).ok()?.uid();
    let mut descriptors = fs::read_dir(folder.join("fd")).ok()?.flatten();
    descriptors.find_map(|descriptor| {
        let opened = descriptor.path();
        let log = fs::read_link(&opened).ok().filter(|path| is_log(path))?;
        Some(MountProcess {
            pid,
            owner,
            log,
            opened,
        })
    })
}

/// Whether a path is that of a log in one of the folders that logs lie in.
fn is_log(path: &Path) -> bool {
    let folder = path.parent().and_then(Path::file_name).unwrap_or_default();
    let folder = folder.to_string_lossy();
    let is_folder = folder == "ckptfs" || folder.starts_with("ckptfs-log-");
    is_folder && path.extension() == Some(OsStr::new("log"))
}

/// The log of the last mount of this user on `point` that has left one.
pub fn last_log(point: &Path) -> Option<PathBuf> {
    let folders = candidates().into_iter();
    let folders = folders.filter(|folder| answers(folder));
    let of_point = folders.flat_map(|folder| {
        let logs = logs(&folder).into_iter();
        let own = logs.filter(|(_, name)| is_log_of(name, point));
        own.map(move |(time, name)| (time, folder.join(name)))
            .collect::<Vec<_>>()
    });
    of_point.max().map(|(_, path)| path)
}
