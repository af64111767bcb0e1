//! The options of an export, and the one that is told how far it is.

use std::num::NonZeroUsize;

/// The options of an export.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    pub threads: NonZeroUsize,
    /// Whether `SHA256SUMS` is written beside the files.
    pub checksum: bool,
    /// Whether files may share the blocks of the source. Their headers are then longer.
    pub reflink: bool,
}

/// A step of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Copy,
    Sum,
}

/// Told how far an export is, from several threads.
pub trait Progress: Sync {
    /// `done` of `total` bytes need no work any more.
    fn begin(&self, step: Step, total: u64, done: u64);
    fn advance(&self, bytes: u64);
}
