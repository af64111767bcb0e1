//! What a reply is read from, and what its files are told before and after.

use std::ops::Range;
use std::sync::Arc;

use crate::source::SourceFile;

/// A range of a file, of which about every part is wanted alike.
pub(super) struct Span {
    pub file: Arc<SourceFile>,
    pub range: Range<u64>,
    /// How many bytes of it are wanted.
    pub bytes: u64,
}

impl Span {
    pub fn record_resident(&self, is_kept: bool) {
        self.file.record_resident(self.range.clone(), is_kept);
    }

    /// `is_kept`: whether the kernel keeps the bytes under the mount's own name.
    pub fn hand_on(self, is_kept: bool) {
        self.file.read_ahead_after(&self.range);
        if is_kept {
            self.file.release(self.range, self.bytes);
        }
    }
}
