//! Readahead of the kernel: a server can only lower what the kernel offers, root can raise it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Two requests of 1 MiB at once, for two threads, instead of one of 128 KiB.
const LEAST: u64 = 2048;

/// Farther than that brings nothing, and is read in vain where a reader wants single tensors.
const MOST: u64 = 8192;

/// Raises the read-ahead of the filesystem `device` to what the storage of the source has, where that is permitted, else
/// says how.
pub fn raise(device: &str, source: &Path) {
    let kib = of_storage(source).unwrap_or(LEAST).clamp(LEAST, MOST);
    let setting = format!("/sys/class/bdi/{device}/read_ahead_kb");
    if fs::write(&setting, kib.to_string()).is_err() {
        tracing::info!("sequential reads get faster when root does: echo {kib} > {setting}");
    }
}

/// Readahead of a file's filesystem, in KiB: its own setting, or that of the disk whose partition it is.
fn of_storage(source: &Path) -> Option<u64> {
    let number = fs::metadata(source).ok()?.dev();
    let device = format!("{}:{}", libc::major(number), libc::minor(number));
    let settings = [
        format!("/sys/class/bdi/{device}/read_ahead_kb"),
        format!("/sys/dev/block/{device}/../bdi/read_ahead_kb"),
    ];
    let mut said = settings.into_iter().map(fs::read_to_string);
    said.find_map(Result::ok)?.trim().parse().ok()
}
