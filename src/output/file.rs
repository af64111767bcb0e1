//! A virtual file: segments whose total size is known before any byte is read.

use std::ops::Range;
use std::sync::Arc;

use super::zip::Checksum;
use crate::error::Result;
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
    Framed(Framed),
}

/// Bytes before and after a piece of a tensor.
#[derive(Debug)]
pub struct Frame {
    pub head: Box<[u8]>,
    pub tail: Box<[u8]>,
    /// The sum of the piece that the frame holds, counted from its first byte.
    pub checksum: Option<Checksum>,
}

impl Frame {
    /// Bytes of the frame around a piece of so many.
    pub fn length(&self, piece: u64) -> u64 {
        self.head.len() as u64 + piece + self.tail.len() as u64
    }
}

/// Equal pieces of a tensor one after the other, each in the same frame: items of a DCP.
#[derive(Debug, Clone)]
pub struct Framed {
    pub tensor: Tensor,
    /// The byte of the tensor at which the first piece starts.
    pub start: u64,
    /// Bytes of each piece.
    pub piece: u64,
    pub count: u64,
    pub frame: Arc<Frame>,
}

impl Framed {
    /// Whether `next` are the pieces that follow these, in the same frame.
    pub fn goes_on_with(&self, next: &Self) -> bool {
        self.tensor.identity() == next.tensor.identity()
            && self.piece == next.piece
            && self.start + self.count * self.piece == next.start
            && Arc::ptr_eq(&self.frame, &next.frame)
    }
}

impl Pieces for Framed {
    fn each_piece<'a>(&'a self, from: u64, to: u64, visit: Visit<'_, 'a>) -> Result<()> {
        let length = self.frame.length(self.piece);
        let head = self.frame.head.len() as u64;
        for number in from / length..to.div_ceil(length) {
            let at = number * length;
            let clip = |start: u64, end: u64| {
                let (start, end) = (start.max(from), end.min(to));
                (start < end).then_some(start..end)
            };
            if let Some(range) = clip(at, at + head) {
                visit(range.start, inline(&self.frame.head, at, &range))?;
            }
            let data = at + head;
            if let Some(range) = clip(data, data + self.piece) {
                let first = self.start + number * self.piece;
                let part = first + (range.start - data)..first + (range.end - data);
                visit(range.start, Piece::Tensor(&self.tensor, part))?;
            }
            let tail = data + self.piece;
            if let Some(range) = clip(tail, at + length) {
                visit(range.start, inline(&self.frame.tail, tail, &range))?;
            }
        }
        Ok(())
    }
}

/// A part of a file's bytes.
#[derive(Debug)]
pub enum Piece<'a> {
    Inline(&'a [u8]),
    Tensor(&'a Tensor, Range<u64>),
    Source(&'a Arc<SourceFile>, Range<u64>),
}

/// Takes pieces, each with the offset at which it lies.
pub type Visit<'v, 'a> = &'v mut dyn FnMut(u64, Piece<'a>) -> Result<()>;

/// Bytes that consist of pieces: a file, one of its segments, or framed pieces of a tensor.
pub trait Pieces {
    /// Calls `visit` with the pieces of bytes `start .. end`, in order.
    fn each_piece<'a>(&'a self, start: u64, end: u64, visit: Visit<'_, 'a>) -> Result<()>;
}

/// The bytes `range` of `bytes` that lie at `at`.
fn inline<'a>(bytes: &'a [u8], at: u64, range: &Range<u64>) -> Piece<'a> {
    let range = (range.start - at) as usize..(range.end - at) as usize;
    Piece::Inline(bytes.get(range).unwrap_or_default())
}

impl Segment {
    pub fn size(&self) -> u64 {
        match self {
            Self::Inline(bytes) => bytes.len() as u64,
            Self::Tensor(tensor) => tensor.bytes(),
            Self::Source(file) => file.size(),
            Self::Framed(framed) => framed.count * framed.frame.length(framed.piece),
        }
    }

    /// The tensor that the segment shows.
    pub fn tensor(&self) -> Option<&Tensor> {
        match self {
            Self::Tensor(tensor) => Some(tensor),
            Self::Framed(framed) => Some(&framed.tensor),
            Self::Inline(_) | Self::Source(_) => None,
        }
    }
}

impl Pieces for Segment {
    fn each_piece<'a>(&'a self, from: u64, to: u64, visit: Visit<'_, 'a>) -> Result<()> {
        match self {
            Self::Inline(bytes) => visit(from, inline(bytes, 0, &(from..to))),
            Self::Tensor(tensor) => visit(from, Piece::Tensor(tensor, from..to)),
            Self::Source(file) => visit(from, Piece::Source(file, from..to)),
            Self::Framed(framed) => framed.each_piece(from, to, visit),
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

/// Permission bits that a file of the view takes from its source. The owner's write bit is that of a copy: without it, its owner could
/// neither edit nor remove one. The mount itself is read-only.
pub const VISIBLE_MODE: u32 = 0o644;

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
            mode: (file.mode() & VISIBLE_MODE) as u16,
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
    /// Sums of the file's data that are still to be made, but for those in frames.
    checksums: Box<[Checksum]>,
    /// Files that inline segments tell of, beside those of the weights.
    origins: Vec<Arc<SourceFile>>,
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
            checksums: Box::default(),
            origins: Vec::new(),
        }
    }

    /// The same file, which says where the sums of its data stand.
    pub fn with_checksums(self, checksums: Vec<Checksum>) -> Self {
        Self {
            checksums: checksums.into(),
            ..self
        }
    }

    /// The sums of data that the file shows as 0, in the order of the data.
    pub fn checksums(&self) -> Vec<Checksum> {
        let mut all = self.checksums.to_vec();
        for (start, segment) in self.overlapping(0, self.size()) {
            if let Segment::Framed(framed) = segment
                && let Some(sum) = &framed.frame.checksum
            {
                let length = framed.frame.length(framed.piece);
                all.extend((0..framed.count).map(|number| sum.moved(start + number * length)));
            }
        }
        all
    }

    /// The same file, whose inline bytes tell of `origin`.
    pub fn made_from(mut self, origin: Arc<SourceFile>) -> Self {
        self.origins.push(origin);
        self
    }

    /// Files that inline segments tell of, beside those of the weights.
    pub fn origins(&self) -> &[Arc<SourceFile>] {
        &self.origins
    }

    /// The same file for other readers.
    pub fn with_attributes(self, attributes: Attributes) -> Self {
        Self { attributes, ..self }
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

impl Pieces for VirtualFile {
    fn each_piece<'a>(&'a self, start: u64, end: u64, visit: Visit<'_, 'a>) -> Result<()> {
        for (segment_start, segment) in self.overlapping(start, end) {
            let from = start.max(segment_start) - segment_start;
            let to = end.min(segment_start + segment.size()) - segment_start;
            segment.each_piece(from, to, &mut |at, piece| visit(segment_start + at, piece))?;
        }
        Ok(())
    }
}

/// A file that the mount makes itself.
pub fn inline_file(path: &str, bytes: Vec<u8>, attributes: Option<Attributes>) -> VirtualFile {
    let attributes = attributes.unwrap_or_default();
    VirtualFile::new(path, attributes, vec![Segment::Inline(bytes.into())])
}

/// A source file under `path`, as it is.
pub fn source_file(path: &str, file: Arc<SourceFile>) -> VirtualFile {
    let attributes = Attributes::of([&*file]).unwrap_or_default();
    VirtualFile::new(path, attributes, vec![Segment::Source(file)])
}
