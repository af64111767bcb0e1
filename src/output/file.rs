//! A virtual file: segments whose total size is known before any byte is read.

use std::sync::Arc;

use crate::source::SourceFile;
use crate::tensor::Tensor;

/// A stretch of a virtual file.
#[derive(Debug, Clone)]
pub enum Segment {
    /// Bytes that the mount itself makes: headers, the index, a derived config.
    Inline(Box<[u8]>),
    /// All bytes of a tensor, row by row.
    Tensor(Tensor),
    /// A whole source file as it is.
    Source(Arc<SourceFile>),
}

impl Segment {
    pub fn size(&self) -> u64 {
        match self {
            Self::Inline(bytes) => bytes.len() as u64,
            Self::Tensor(tensor) => tensor.bytes(),
            Self::Source(file) => file.size(),
        }
    }
}

/// Attributes of a file beside its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attributes {
    /// Permission bits of the source, readable ones only.
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    /// Seconds and nanoseconds since the epoch of the newest source file.
    pub modified: (i64, i64),
}

impl Attributes {
    /// The attributes of a file made of `sources`: readable by whom each of them is, as new as the newest.
    /// `None` without sources.
    pub fn of<'a>(sources: impl IntoIterator<Item = &'a SourceFile>) -> Option<Self> {
        sources.into_iter().map(Self::of_one).reduce(|a, b| Self {
            mode: a.mode & b.mode,
            modified: a.modified.max(b.modified),
            ..a
        })
    }

    fn of_one(file: &SourceFile) -> Self {
        let (uid, gid) = file.owner();
        Self {
            mode: (file.mode() & 0o444) as u16,
            uid,
            gid,
            modified: file.modified(),
        }
    }
}

/// A regular file of the synthetic directory.
#[derive(Debug, Clone)]
pub struct VirtualFile {
    path: String,
    attributes: Attributes,
    segments: Box<[Segment]>,
    /// Offset at which each segment ends.
    ends: Box<[u64]>,
}

impl VirtualFile {
    /// `path` is relative to the mount point, its components joined by `/`.
    pub fn new(path: impl Into<String>, attributes: Attributes, segments: Vec<Segment>) -> Self {
        let mut end = 0;
        let ends = segments
            .iter()
            .map(|segment| {
                end += segment.size();
                end
            })
            .collect();
        Self {
            path: path.into(),
            attributes,
            segments: segments.into(),
            ends,
        }
    }

    /// The same file in a folder of the directory.
    pub fn below(self, folder: &str) -> Self {
        Self {
            path: format!("{folder}/{}", self.path),
            ..self
        }
    }

    pub fn path(&self) -> &str {
        &self.path
    }

    pub fn attributes(&self) -> Attributes {
        self.attributes
    }

    /// Exact size in bytes.
    pub fn size(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The segments that hold bytes `start .. end`, each with the offset at which it starts.
    pub fn overlapping(&self, start: u64, end: u64) -> impl Iterator<Item = (u64, &Segment)> {
        let first = self
            .ends
            .partition_point(|segment_end| *segment_end <= start);
        let starts = (first..).map(|i| i.checked_sub(1).map_or(0, |i| self.ends[i]));
        starts
            .zip(self.segments[first..].iter())
            .take_while(move |(segment_start, _)| *segment_start < end)
    }
}
