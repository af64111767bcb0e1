//! What makes two exports one: the same bytes from the same sources.

use std::fmt::Write;

use sha2::{Digest, Sha256};

use super::runs;
use crate::error::Result;
use crate::output::{Segment, VirtualFile};
use crate::source::SourceFile;

/// Equal for two lists of files only if each byte of both is made in the same way of the same, unchanged source files.
pub fn of(files: &[VirtualFile]) -> Result<String> {
    let mut hash = Sha256::new();
    let mut text = env!("CARGO_PKG_VERSION").to_owned();
    for file in files {
        add(
            &mut text,
            format_args!("file {:?} {}", file.path(), file.size()),
        );
        for segment in file.segments() {
            match segment {
                Segment::Inline(bytes) => hash.update(bytes),
                Segment::Source(source) => add_source(&mut text, source),
                Segment::Tensor(_) => {}
            }
        }
        runs::each_nest(file, &mut |start, tensor, nest| {
            add_source(&mut text, nest.stored.file());
            let types = (nest.dtype, tensor.dtype());
            let places = (nest.source, start, nest.destination);
            add(
                &mut text,
                format_args!("{types:?} {places:?} {:?}", nest.loops()),
            );
            // Text does not pile up, however many copies make a file.
            hash.update(text.as_bytes());
            text.clear();
        })?;
    }
    hash.update(text.as_bytes());
    Ok(hex(&hash.finalize()))
}

fn add_source(text: &mut String, source: &SourceFile) {
    let (path, stamp) = (source.path(), (source.size(), source.modified()));
    add(text, format_args!("source {path:?} {stamp:?}"));
}

fn add(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to memory cannot fail.
    let _ = writeln!(text, "{line}");
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
