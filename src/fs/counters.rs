//! Counters of a mount.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::read::ReadFile;

/// Counts of a mount's requests. Requests that the kernel answers from its caches or the source are not among them.
#[derive(Debug)]
pub struct Counters {
    reader: Arc<dyn ReadFile>,
    requests: AtomicU64,
    bytes: AtomicU64,
    errors: AtomicU64,
}

impl Counters {
    pub(super) fn new(reader: Arc<dyn ReadFile>) -> Self {
        Self {
            reader,
            requests: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            errors: AtomicU64::new(0),
        }
    }

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
            source_reads = self.reader.source_reads(),
            errors = count(&self.errors),
        );
    }
}
