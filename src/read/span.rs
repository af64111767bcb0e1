//! What a reply is read from, and what its files are told before and after.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::tensor::SourceFile;

/// A range of a file, of which about every part is wanted alike.
pub(super) struct Span {
    pub file: Arc<SourceFile>,
    pub range: Range<u64>,
    /// How many bytes of it are wanted.
    pub bytes: u64,
}

/// A reply that was sent.
#[derive(Debug, Clone, Copy)]
pub struct Reply {
    pub length: u64,
    /// From the request to here.
    pub took: Duration,
    /// Whether the kernel keeps the bytes under the mount's own name.
    pub is_kept: bool,
}

/// A shorter reply tells latency, not speed.
const TELLING: u64 = 128 << 10;

impl Span {
    pub fn note_cached(&self, is_kept: bool) {
        self.file.note_cached(self.range.clone(), is_kept);
    }

    /// `took_all`: whether nothing but the source took the time.
    pub fn hand_on(self, reply: Reply, took_all: bool) {
        if took_all && reply.length >= TELLING {
            self.file.note_pace(reply.length, reply.took);
        }
        self.file.read_ahead_of(&self.range);
        if reply.is_kept {
            self.file.give_back(self.range, self.bytes);
        }
    }
}
