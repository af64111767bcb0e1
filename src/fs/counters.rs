//! Counters of a mount.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::source::source_reads;

/// Counts of a mount's requests. Requests that the kernel answers from its caches or the source are not among them.
#[derive(Debug, Default)]
pub struct Counters {
    requests: AtomicU64,
    bytes: AtomicU64,
    errors: AtomicU64,
}

impl Counters {
    pub(super) fn request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn served(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn failed(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
    }

    /// Writes a line to the log.
    pub fn log(&self) {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        tracing::info!(
            target: "ckptfs::stats",
            requests = count(&self.requests),
            bytes = count(&self.bytes),
            source_reads = source_reads(),
            errors = count(&self.errors),
        );
    }
}
