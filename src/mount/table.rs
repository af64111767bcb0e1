//! The table of mounts, as /proc/self/mountinfo shows it: asked without touching any filesystem.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// A mount of this process' namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// `major:minor` of the filesystem, its `st_dev`.
    pub device: String,
    pub point: PathBuf,
    /// Filesystem type, such as `ext4` or `fuse.ckptfs`.
    pub kind: String,
    /// What the filesystem calls its device.
    pub source: String,
}

/// What is mounted on `point`: of several the uppermost. `None` also where the table cannot be read.
pub fn at(point: &Path) -> Option<Entry> {
    let mut entries = all().ok()?.into_iter().rev();
    entries.find(|entry| entry.point == point)
}

/// All mounts, in the order in which they were made.
pub fn all() -> io::Result<Vec<Entry>> {
    let table = std::fs::read("/proc/self/mountinfo")?;
    let lines = table.split(|byte| *byte == b'\n');
    Ok(lines.filter_map(entry).collect())
}

/// `36 35 98:0 /root /point options [optional fields] - type source options`
fn entry(line: &[u8]) -> Option<Entry> {
    let mut fields = line.split(|byte| *byte == b' ');
    let device = fields.nth(2)?;
    let point = fields.nth(1)?;
    let mut fields = fields.skip_while(|field| *field != b"-").skip(1);
    let (kind, source) = (fields.next()?, fields.next()?);
    Some(Entry {
        device: String::from_utf8_lossy(device).into_owned(),
        point: OsString::from_vec(unescape(point)).into(),
        kind: String::from_utf8_lossy(kind).into_owned(),
        source: String::from_utf8_lossy(&unescape(source)).into_owned(),
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
        let line = br"36 35 98:0 / /mnt/a\040b\134c rw,noatime shared:1 master:2 - fuse.ckptfs ckptfs\043x ro";
        let expected = Entry {
            device: "98:0".to_owned(),
            point: PathBuf::from("/mnt/a b\\c"),
            kind: "fuse.ckptfs".to_owned(),
            source: "ckptfs#x".to_owned(),
        };
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
