//! Open descriptors, pooled: ten thousand shards need no ten thousand descriptors, of which each may have two.

use std::fs::File;
use std::num::NonZeroUsize;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use lru::LruCache;

/// The open descriptors, least recently used first to go.
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

/// Descriptors that are left to the connection to the kernel, one for each of at most 16 threads, and to the rest.
const OTHERS: usize = 32;

/// Descriptors kept open: three quarters of what the process may have, after raising the soft limit to the hard one, less
/// where the others need more.
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
    let kept = (allowed / 4 * 3).min(allowed.saturating_sub(OTHERS));
    NonZeroUsize::new(kept).unwrap_or(NonZeroUsize::MIN)
}
