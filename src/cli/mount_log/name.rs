//! The name of a mount's log, which tells the mount point and the process.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use sha2::{Digest, Sha256};

/// Characters of the mount point's last name in the name of the file.
const SHOWN: usize = 40;

/// End of the file's name.
pub const ENDING: &str = ".log";

/// Beginning of the names of all logs of a mount point.
pub fn prefix(point: &Path) -> String {
    let last = point.file_name().unwrap_or(OsStr::new("root"));
    let is_plain = |char: &char| char.is_ascii_alphanumeric() || "._-".contains(*char);
    let last = last.to_string_lossy();
    let last: String = last.chars().filter(is_plain).take(SHOWN).collect();
    let sum = Sha256::digest(point.as_os_str().as_bytes());
    let sum: String = sum
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("{last}-{sum}-")
}

/// Whether `name` is the name of a log of `point`.
pub fn is_log_of(name: &OsStr, point: &Path) -> bool {
    let name = name.to_string_lossy();
    name.starts_with(&prefix(point)) && name.ends_with(ENDING)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_mount_points_apart() {
        let point = Path::new("/mnt/step 4/\u{e9}4000");
        let name = format!("{}12-0.log", prefix(point));
        assert!(name.starts_with("4000-"), "{name}");
        assert!(is_log_of(OsStr::new(&name), point));
        assert!(!is_log_of(OsStr::new(&name), Path::new("/mnt/4000")));
    }
}
