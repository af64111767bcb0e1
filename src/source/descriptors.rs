//! A pool of open descriptors: ten thousand shards, each with up to two descriptors, need not all be open at once.

use std::fs::File;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lru::LruCache;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// A file of the pool: its number, and whether the descriptor is for direct I/O.
type Key = (usize, bool);

/// Open descriptors; the least recently used is closed first.
#[derive(Debug)]
pub(super) struct Descriptors(Mutex<LruCache<Key, Arc<File>>>);

impl Descriptors {
    pub(super) fn new() -> Self {
        Self(Mutex::new(LruCache::new(capacity())))
    }

    pub(super) fn get(&self, key: Key) -> Option<Arc<File>> {
        self.files().get(&key).cloned()
    }

    pub(super) fn put(&self, key: Key, file: Arc<File>) {
        self.files().put(key, file);
    }

    /// Closes both descriptors of a file.
    pub(super) fn remove(&self, number: usize) {
        let mut files = self.files();
        files.pop(&(number, false));
        files.pop(&(number, true));
    }

    fn files(&self) -> MutexGuard<'_, LruCache<Key, Arc<File>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Descriptors reserved for the FUSE session (one for each of at most 16 threads) and the rest of the process.
const RESERVED: usize = 32;

/// The soft limit is raised to at most this.
const HIGHEST: u64 = 1 << 16;

/// Returns the capacity of the pool: three quarters of `RLIMIT_NOFILE` after raising the soft limit to the hard one, and at
/// least [`RESERVED`] below it.
fn capacity() -> NonZeroUsize {
    let resource = Resource::RLIMIT_NOFILE;
    let allowed = getrlimit(resource).map_or(256, |(soft, hard)| {
        let raised = hard.min(HIGHEST);
        setrlimit(resource, raised, hard).map_or(soft, |()| raised)
    });
    let allowed = usize::try_from(allowed).unwrap_or(usize::MAX);
    let kept = (allowed / 4 * 3).min(allowed.saturating_sub(RESERVED));
    NonZeroUsize::new(kept).unwrap_or(NonZeroUsize::MIN)
}
