//! Where each tensor lies in the files of the directory.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::file::{Segment, VirtualFile};

/// A tensor's first byte in a file of the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileRange<'a> {
    pub file: &'a str,
    pub start: u64,
}

/// The file_ranges of all tensors by name.
pub fn file_ranges(files: &[VirtualFile]) -> HashMap<String, FileRange<'_>> {
    files.iter().flat_map(in_file).collect()
}

fn in_file(file: &VirtualFile) -> Vec<(String, FileRange<'_>)> {
    let [Segment::Inline(header), Segment::Tensor(_), ..] = file.segments() else {
        return Vec::new();
    };
    let data = header.len() as u64;
    let place = |start| FileRange {
        file: file.path(),
        start,
    };
    match file.path().strip_suffix(".npy") {
        Some(module) => vec![(module.replace('/', "."), place(data))],
        None => starts(header)
            .map(|(name, start)| (name, place(data + start)))
            .collect(),
    }
}

/// Each tensor of a safetensors header, and where it starts behind the header.
fn starts(header: &[u8]) -> impl Iterator<Item = (String, u64)> + use<> {
    let json = header.get(8..).unwrap_or_default();
    let entries: Map<String, Value> = serde_json::from_slice(json).unwrap_or_default();
    let start = |entry: &Value| entry.get("data_offsets")?.get(0)?.as_u64();
    entries
        .into_iter()
        .filter_map(move |(name, entry)| Some((name, start(&entry)?)))
}
