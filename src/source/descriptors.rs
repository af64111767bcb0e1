//! A pool of open descriptors: ten thousand shards, each with up to two descriptors, need not all be open at once.

use std::fs::File;
use std::num::NonZeroUsize;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use lru::LruCache;

/// Open descriptors; the least recently used is closed first.
pub(super) struct Pool(Mutex<LruCache<u64, Arc<File>>>);

impl Pool {
    pub fn get(&self, id: u64) -> Option<Arc<File>> {
        self.files().get(&id).cloned()
    }

    pub fn put(&self, id: u64, file: Arc<File>) {
        self.files().put(id, file);
    }

    pub fn remove(&self, id: u64) {
        self.files().pop(&id);
    }

    fn files(&self) -> MutexGuard<'_, LruCache<u64, Arc<File>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn pool() -> &'static Pool {
    static POOL: LazyLock<Pool> =
        LazyLock::new(|| Pool(Mutex::new(LruCache::new(descriptor_limit()))));
    &POOL
}

/// Descriptors reserved for the FUSE session (one for each of at most 16 threads) and the rest of the process.
const RESERVED: usize = 32;

/// Returns the capacity of the pool: three quarters of `RLIMIT_NOFILE` after raising the soft limit to the hard one, and at
/// least [`RESERVED`] below it.
fn descriptor_limit() -> NonZeroUsize {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: both calls only read or write the struct that they are given.
    let allowed = unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) != 0 {
            256
        } else {
            limit.rlim_cur = limit.rlim_max.min(1 << 16);
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
            libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
            limit.rlim_cur
        }
    };
    let allowed = allowed as usize;
    let kept = (allowed / 4 * 3).min(allowed.saturating_sub(RESERVED));
    NonZeroUsize::new(kept).unwrap_or(NonZeroUsize::MIN)
}
