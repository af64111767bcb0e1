//! Files that lie in the place of a checkpoint's when a download or a copy went wrong.

use std::path::Path;

use crate::error::Error;
use crate::text::beginning;

/// Returns the kind of a file that begins with `front`, and what to do; `None` when it is none of these.
pub fn kind(front: &[u8]) -> Option<&'static str> {
    const KINDS: &[(&[u8], &str)] = &[
        (
            b"version https://git-lfs",
            "is a Git LFS pointer; fetch the file itself with: git lfs pull",
        ),
        (b"7z\xbc\xaf\x27\x1c", "is a 7z archive; unpack it first"),
        (b"\x1f\x8b", "is compressed with gzip; unpack it first"),
        (
            b"\x28\xb5\x2f\xfd",
            "is compressed with zstd; unpack it first",
        ),
    ];
    let starts = |(magic, _): &&(&[u8], &str)| front.starts_with(magic);
    match front {
        [] => Some("is empty; copy it again, or take another save"),
        [b'<', b'!' | b'?' | b'a'..=b'z' | b'A'..=b'Z', ..] => {
            Some("is a web page or XML; download the file itself again")
        }
        _ => KINDS.iter().find(starts).map(|kind| kind.1),
    }
}

/// Why `bytes` of `file` are no JSON.
pub fn no_json(file: &Path, bytes: &[u8], error: &serde_json::Error) -> Error {
    match kind(bytes) {
        Some(what) => Error::checkpoint(file, what),
        None => Error::malformed(
            file,
            format!("no JSON that is understood: {}", beginning(error)),
        ),
    }
}
