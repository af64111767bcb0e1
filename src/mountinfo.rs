//! The table of mounts, as /proc/thread-self/mountinfo shows it: asked without touching any filesystem.

use std::collections::HashSet;
use std::ffi::{CString, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// A mount of this thread's namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// `major:minor` of the filesystem, its `st_dev`.
    pub device: String,
    /// Which directory of the filesystem is mounted.
    pub root: PathBuf,
    pub point: PathBuf,
    /// Filesystem type, such as `ext4` or `fuse.ckptfs`.
    pub kind: String,
    /// The source column of the mount table.
    pub source: String,
    /// Options of the filesystem, between commas.
    pub options: String,
}

/// Type under which the table shows our mounts.
pub const KIND: &str = "fuse.ckptfs";

/// Prefix of the source column of our mounts.
pub const NAME_PREFIX: &str = "ckptfs#";

impl Entry {
    /// The user who mounted it, where the filesystem tells.
    pub fn owner(&self) -> Option<u32> {
        let mut options = self.options.split(',');
        options.find_map(|option| option.strip_prefix("user_id=")?.parse().ok())
    }

    /// Whether a ckptfs mounted it: told by its type, or by its name where the subtype was not kept.
    pub fn is_view(&self) -> bool {
        let is_fuse = self.kind.starts_with("fuse");
        self.kind == KIND || is_fuse && self.source.starts_with(NAME_PREFIX)
    }
}

/// Number of a filesystem, its `st_dev`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    major: u32,
    minor: u32,
}

impl Device {
    /// Returns the device of the filesystem on which `path` itself lies, also for a symbolic link. A mount point is not entered.
    pub fn of(path: &Path) -> Option<Self> {
        let told = statx(path, 0)?;
        Some(Self {
            major: told.stx_dev_major,
            minor: told.stx_dev_minor,
        })
    }
}

/// Whether the filesystem is a mounted view.
pub fn is_view(device: Device) -> bool {
    let number = format!("{}:{}", device.major, device.minor);
    let is_it = |entry: Entry| entry.device == number && entry.is_view();
    all().is_ok_and(|entries| entries.into_iter().any(is_it))
}

/// Returns the uppermost mount on `point`, or `None`, also where the mount table cannot be read.
pub fn at(point: &Path) -> Option<Entry> {
    let mut entries = all().ok()?.into_iter().rev();
    entries.find(|entry| entry.point == point)
}

/// Counts the filesystems that are mounted on `point`, one on the other. 0 also where the table cannot be read. One that a shared
/// mount shows twice is one.
pub fn count(point: &Path) -> usize {
    let entries = all().into_iter().flatten();
    let on_point = entries.filter(|entry| entry.point == point);
    on_point
        .map(|entry| entry.device)
        .collect::<HashSet<_>>()
        .len()
}

/// Identifies a mount, also among later ones on the same point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Given to the next mount as soon as this one is gone.
    pub device: String,
    /// Never given again, and known since Linux 6.8.
    unique: Option<u64>,
}

impl Identity {
    /// Whether no other mount will ever have it.
    pub fn is_unique(&self) -> bool {
        self.unique.is_some()
    }
}

/// Of the uppermost mount on `point`. `None` also where the table cannot be read.
pub fn identity(point: &Path) -> Option<Identity> {
    let device = at(point)?.device;
    let unique = unique(point);
    Some(Identity { device, unique })
}

/// Where a mount lies that was made at `point`, should a directory above it have another name by now. `None` when it is
/// gone.
pub fn place(identity: &Identity, point: &Path) -> Option<PathBuf> {
    let is_it = |point: &Path| match identity.unique {
        Some(_) => unique(point) == identity.unique,
        // The table cannot be read, for want of descriptors.
        None => all().is_err() || at(point).is_some_and(|entry| entry.device == identity.device),
    };
    if is_it(point) {
        return Some(point.to_owned());
    }
    let same_device = |entry: &Entry| entry.device == identity.device;
    let mut others = all().ok()?.into_iter().filter(same_device);
    others
        .find(|entry| identity.unique.is_some() && is_it(&entry.point))
        .map(|entry| entry.point)
}

/// As `STATX_MNT_ID_UNIQUE` of statx(2) tells it.
fn unique(point: &Path) -> Option<u64> {
    let wanted = libc::STATX_MNT_ID_UNIQUE;
    let told = statx(point, wanted)?;
    (told.stx_mask & wanted != 0).then_some(told.stx_mnt_id)
}

/// Calls statx(2) on a path without following a link or entering a mount point.
fn statx(path: &Path, wanted: u32) -> Option<libc::statx> {
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    let flags = libc::AT_STATX_DONT_SYNC | libc::AT_SYMLINK_NOFOLLOW | libc::AT_NO_AUTOMOUNT;
    crate::statx::statx(libc::AT_FDCWD, &path, flags, wanted).ok()
}

/// All mounts, in the order in which they were made.
pub fn all() -> io::Result<Vec<Entry>> {
    let table = std::fs::read("/proc/thread-self/mountinfo")?;
    let lines = table.split(|byte| *byte == b'\n');
    Ok(lines.filter_map(entry).collect())
}

/// `36 35 98:0 /root /point options [optional fields] - type source options`
fn entry(line: &[u8]) -> Option<Entry> {
    let mut fields = line.split(|byte| *byte == b' ');
    let device = fields.nth(2)?;
    let (root, point) = (fields.next()?, fields.next()?);
    let mut fields = fields.skip_while(|field| *field != b"-").skip(1);
    let (kind, source, options) = (fields.next()?, fields.next()?, fields.next()?);
    Some(Entry {
        device: String::from_utf8_lossy(device).into_owned(),
        root: OsString::from_vec(unescape(root)).into(),
        point: OsString::from_vec(unescape(point)).into(),
        kind: String::from_utf8_lossy(kind).into_owned(),
        source: String::from_utf8_lossy(&unescape(source)).into_owned(),
        options: String::from_utf8_lossy(options).into_owned(),
    })
}

/// Blanks, newlines and backslashes stand as three octal digits after a backslash.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((byte, after)) = rest.split_first() {
        let escaped = (*byte == b'\\').then(|| octal(after)).flatten();
        plain.push(escaped.unwrap_or(*byte));
        rest = if escaped.is_some() {
            &after[3..]
        } else {
            after
        };
    }
    plain
}

fn octal(digits: &[u8]) -> Option<u8> {
    let digits = std::str::from_utf8(digits.get(..3)?).ok()?;
    u8::from_str_radix(digits, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_kernel() {
        let line = br"36 35 98:0 / /mnt/a\040b\134c rw,noatime shared:1 master:2 - fuse.ckptfs ckptfs\043x ro,user_id=65534,group_id=0";
        let expected = Entry {
            device: "98:0".to_owned(),
            root: PathBuf::from("/"),
            point: PathBuf::from("/mnt/a b\\c"),
            kind: "fuse.ckptfs".to_owned(),
            source: "ckptfs#x".to_owned(),
            options: "ro,user_id=65534,group_id=0".to_owned(),
        };
        assert_eq!(expected.owner(), Some(65_534));
        assert_eq!(entry(line), Some(expected));
        assert_eq!(entry(b""), None);
        assert_eq!(entry(b"36 35 98:0 / /mnt rw"), None);
    }

    #[test]
    fn the_root_is_mounted() {
        assert!(at(Path::new("/")).is_some());
        assert!(at(Path::new("/no such place")).is_none());
    }
}
