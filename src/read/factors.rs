//! Inputs that many replies share: the right factor of a low-rank update and the scales of blocks, read or computed once and
//! kept while there is room.
//!
//! A reply from something kept would not notice that its source changed. So each use looks at the sources again.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lru::LruCache;

use crate::error::Result;
use crate::source::SourceFile;
use crate::tensor::{Identity, Tensor};

/// Bytes that it takes to keep track of a factor.
const OVERHEAD: u64 = 256;

/// Numbers in f32, and the files that they were read from.
#[derive(Debug)]
pub(super) struct Factor {
    values: Vec<f32>,
    files: Vec<Arc<SourceFile>>,
}

impl Factor {
    /// Numbers that are used once.
    pub fn unshared(values: Vec<f32>) -> Arc<Self> {
        let files = Vec::new();
        Arc::new(Self { values, files })
    }

    pub fn values(&self) -> &[f32] {
        &self.values
    }

    fn size(&self) -> u64 {
        4 * self.values.len() as u64 + OVERHEAD
    }

    fn check(&self) -> Result<()> {
        let mut files = self.files.iter();
        files.try_for_each(|file| file.check_unchanged())
    }
}

/// A part of a tensor.
type Key = (Identity, u64);

/// The factors that a mount keeps, least recently used last.
#[derive(Debug)]
pub(super) struct Factors {
    limit: u64,
    taken: Arc<AtomicU64>,
    kept: Mutex<LruCache<Key, Arc<Factor>>>,
}

impl Factors {
    pub fn new(limit: u64) -> Self {
        Self {
            limit,
            taken: Arc::default(),
            kept: Mutex::new(LruCache::unbounded()),
        }
    }

    /// Most bytes of all factors together.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Bytes of all factors together, now and later.
    pub fn taken(&self) -> Arc<AtomicU64> {
        self.taken.clone()
    }

    /// Returns what `make` gives of part `number` of a tensor, made once as long as it is kept.
    pub fn kept(
        &self,
        tensor: &Tensor,
        number: u64,
        make: impl FnOnce() -> Result<Vec<f32>>,
    ) -> Result<Arc<Factor>> {
        let key = (tensor.identity(), number);
        let kept = self.lock().get(&key).cloned();
        if let Some(factor) = kept {
            factor.check()?;
            return Ok(factor);
        }
        let mut files: Vec<Arc<SourceFile>> = Vec::new();
        tensor.each_stored(&mut |stored| {
            if !files.iter().any(|file| Arc::ptr_eq(file, stored.file())) {
                files.push(stored.file().clone());
            }
        });
        let values = make()?;
        let factor = Arc::new(Factor { values, files });
        self.put(key, &factor);
        Ok(factor)
    }

    fn put(&self, key: Key, factor: &Arc<Factor>) {
        let own = factor.size();
        if own > self.limit {
            return;
        }
        let mut kept = self.lock();
        let mut taken = self.taken.load(Ordering::Relaxed);
        while taken + own > self.limit
            && let Some((_, gone)) = kept.pop_lru()
        {
            taken = taken.saturating_sub(gone.size());
        }
        if let Some((_, replaced)) = kept.push(key, factor.clone()) {
            taken = taken.saturating_sub(replaced.size());
        }
        self.taken.store(taken + own, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<Key, Arc<Factor>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
