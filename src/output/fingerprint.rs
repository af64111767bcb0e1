//! By what two views are known to be one: the same bytes from the same sources.

use std::collections::HashSet;
use std::fmt::{self, Display, Formatter, Write};

use sha2::{Digest, Sha256};

use super::file::{Segment, VirtualFile};
use crate::error::Result;
use crate::source::SourceFile;
use crate::tensor::{Part, Tensor, pieces};

/// Equal for two lists of files only if each byte of both is made in the same way of the same, unchanged source files.
#[derive(Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// The making of each byte, of files by their paths, sizes and modification times.
    view: String,
    /// Inodes and change times of these files: another save of equal size can be given the modification time of the first.
    sources: String,
}

/// The part of an interrupted export that is of use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Match {
    Whole,
    /// The same view of files that are not known to hold the same bytes: none of it.
    ViewAlone,
    None,
}

impl Fingerprint {
    /// Of files in this order.
    ///
    /// # Errors
    /// When a tensor cannot be taken apart.
    pub fn of(files: &[VirtualFile]) -> Result<Self> {
        of(files)
    }

    /// Compares it with that of an earlier export, as [`Display`] wrote it.
    pub fn compare(&self, earlier: &str) -> Match {
        match earlier.split_once(' ') {
            Some((view, sources)) if view == self.view => match sources == self.sources {
                true => Match::Whole,
                false => Match::ViewAlone,
            },
            _ => Match::None,
        }
    }
}

impl Display for Fingerprint {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.view, self.sources)
    }
}

fn of(files: &[VirtualFile]) -> Result<Fingerprint> {
    let mut hash = Sha256::new();
    let mut sources = Sources::default();
    let mut framed_tensors = HashSet::new();
    let mut text = env!("CARGO_PKG_VERSION").to_owned();
    for file in files {
        add(
            &mut text,
            format_args!("file {:?} {}", file.path(), file.size()),
        );
        for segment in file.segments() {
            match segment {
                Segment::Inline(bytes) => hash.update(bytes),
                Segment::Source(source) => {
                    add_source(&mut text, source);
                    sources.add(source);
                }
                Segment::Framed(framed) => {
                    hash.update(&framed.frame.head);
                    hash.update(&framed.frame.tail);
                }
                Segment::Tensor(_) => {}
            }
        }
        for (start, segment) in file.overlapping(0, file.size()) {
            let Some(tensor) = segment.tensor() else {
                continue;
            };
            add(&mut text, format_args!("tensor {start}"));
            if let Segment::Framed(framed) = segment {
                let pieces = (framed.start, framed.piece, framed.count);
                add(&mut text, format_args!("{pieces:?}"));
                // One tensor may be cut into pieces of many frames.
                if !framed_tensors.insert(tensor.identity()) {
                    continue;
                }
            }
            tensor.each_stored(&mut |stored| sources.add(stored.file()));
            add_tensor(&mut hash, &mut text, tensor)?;
        }
    }
    hash.update(text.as_bytes());
    Ok(Fingerprint {
        view: hex(&hash.finalize()),
        sources: hex(&sources.hash.finalize()),
    })
}

/// The state of each source file, once.
#[derive(Default)]
struct Sources {
    hash: Sha256,
    seen: HashSet<usize>,
}

impl Sources {
    fn add(&mut self, source: &SourceFile) {
        if self.seen.insert(source.id()) {
            let line = format!(
                "{:?} {} {:?}\n",
                source.path(),
                source.inode(),
                source.changed()
            );
            self.hash.update(line.as_bytes());
        }
    }
}

/// Every copy that makes a tensor, and every kernel with its inputs.
fn add_tensor(hash: &mut Sha256, text: &mut String, tensor: &Tensor) -> Result<()> {
    let mut last = None;
    pieces(tensor, 0..u64::MAX, &mut |piece| {
        match piece {
            Part::Stored(nest) => {
                add_source(text, nest.stored.file());
                let types = (nest.dtype, tensor.dtype());
                let places = (nest.source, nest.destination);
                add(
                    text,
                    format_args!("{types:?} {places:?} {:?}", nest.loops()),
                );
            }
            Part::Computed(part) => {
                let places = (&part.rows, &part.columns, part.destination);
                let steps = (part.row_target, part.column_target);
                let types = (part.tensor.dtype(), tensor.dtype());
                add(text, format_args!("{types:?} {places:?} {steps:?}"));
                let computed = part.tensor.as_computed();
                if let Some((kernel, inputs)) = computed
                    && last.replace(part.tensor.identity()) != Some(part.tensor.identity())
                {
                    add(text, format_args!("{kernel:?}"));
                    for input in inputs {
                        add_tensor(hash, text, input)?;
                    }
                }
            }
        }
        // Text does not pile up, however many copies make a file.
        hash.update(text.as_bytes());
        text.clear();
        Ok(())
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_of_other_files_is_told_from_another_view() {
        let of = |view: &str, sources: &str| Fingerprint {
            view: view.to_owned(),
            sources: sources.to_owned(),
        };
        let earlier = of("v", "s").to_string();
        assert_eq!(of("v", "s").compare(&earlier), Match::Whole);
        assert_eq!(of("v", "t").compare(&earlier), Match::ViewAlone);
        assert_eq!(of("w", "s").compare(&earlier), Match::None);
        for line in ["", "v", "v ", "s v"] {
            assert_ne!(of("v", "s").compare(line), Match::Whole, "{line:?}");
        }
    }
}
