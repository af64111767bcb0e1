//! Options of a mount.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use crate::read::{ReadFile, Reader};

/// Options of a mount.
#[derive(Debug, Clone)]
pub struct Options {
    /// The checkpoint or the run: shown as the mount's device, and kept apart from the mount point.
    pub source: PathBuf,
    /// Whether other users may read what all source files and the directories above them let them read.
    pub allow_other: bool,
    /// Threads that answer requests; without a number as many as cores, 8 to 16.
    pub threads: Option<NonZeroUsize>,
    /// Whether the kernel may read files that equal one source file by itself.
    pub passthrough: bool,
    /// Produces the bytes, and owns the caches of the mount.
    pub reader: Arc<dyn ReadFile>,
}

impl Options {
    pub fn new(source: impl Into<PathBuf>) -> Self {
        Self {
            source: source.into(),
            allow_other: false,
            threads: None,
            passthrough: false,
            reader: Arc::new(Reader::default()),
        }
    }

    /// More than the fewest cores: some of them wait for the disk.
    pub(super) fn threads(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(2, NonZeroUsize::get);
        self.threads
            .map_or_else(|| cores().clamp(8, 16), NonZeroUsize::get)
    }
}
