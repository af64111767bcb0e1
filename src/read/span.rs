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
    pub length: usize,
    /// From the request to here.
    pub took: Duration,
    /// Whether the kernel keeps the bytes under the mount's own name.
    pub is_kept: bool,
}

/// A reply at fewer bytes a second comes from a slow source.
const SLOW: f64 = 50e6;

/// A shorter reply tells latency, not speed.
const TELLING: usize = 128 << 10;

impl Reply {
    fn is_slow(&self) -> bool {
        self.length >= TELLING && (self.length as f64) < SLOW * self.took.as_secs_f64()
    }
}

impl Span {
    pub fn note_cached(&self, is_kept: bool) {
        self.file.note_cached(self.range.clone(), is_kept);
    }

    /// `is_telling`: whether the source alone took the time.
    pub fn hand_on(self, reply: Reply, is_telling: bool) {
        if is_telling {
            self.file.read_ahead_of(&self.range, reply.is_slow());
        }
        if reply.is_kept {
            self.file.give_back(self.range, self.bytes);
        }
    }
}
