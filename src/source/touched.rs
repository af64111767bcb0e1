//! The ranges of source files that a reply was read from, recorded by the reads themselves.

use std::ops::Range;
use std::sync::Arc;

use super::file::SourceFile;
use super::page_cache::Caching;
use super::route::LONG;
use super::wanted::{Wanted, bytes, span};

/// A range of a file, of which about every part was read alike.
#[derive(Debug)]
struct Span {
    file: Arc<SourceFile>,
    range: Range<u64>,
    bytes: u64,
}

/// Ranges that were read for one reply. Dropped unsettled, such as after a failure, they count as never read.
#[derive(Debug)]
pub struct Touched {
    caching: Caching,
    spans: Vec<Span>,
}

impl Touched {
    pub fn new(caching: Caching) -> Self {
        let spans = Vec::new();
        Self { caching, spans }
    }

    /// Records ranges near each other, before they are read.
    pub(super) fn add_region(&mut self, wanted: &[Wanted<'_, '_>]) {
        if let Some(first) = wanted.first() {
            self.add(first.file, span(wanted), bytes(wanted));
        }
    }

    /// Records that `bytes`, evenly spread over a range, are about to be read.
    pub(super) fn add(&mut self, file: &Arc<SourceFile>, range: Range<u64>, bytes: u64) {
        file.record_resident(range.clone(), self.caching);
        let next = |last: &&mut Span| {
            let gap = range.start.checked_sub(last.range.end);
            Arc::ptr_eq(&last.file, file) && gap.is_some_and(|gap| gap <= LONG)
        };
        match self.spans.last_mut().filter(next) {
            Some(last) => {
                last.range.end = range.end;
                last.bytes += bytes;
            }
            None => self.spans.push(Span {
                file: file.clone(),
                range,
                bytes,
            }),
        }
    }

    /// Reads ahead of a sequential reader of a slow file, and releases from the page cache what the kernel keeps as a reply.
    /// Best effort.
    pub fn settle(self) {
        for Span { file, range, bytes } in self.spans {
            file.read_ahead_after(&range);
            if self.caching == Caching::Kernel {
                file.release(range, bytes);
            }
        }
    }
}
