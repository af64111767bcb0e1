//! Inputs that many replies share: the right factor of a low-rank update and the scales of blocks, read or computed once and
//! kept while there is room.
//!
//! A reply from something kept would not notice that its source changed. So each use looks at the sources again.

use std::ops::Range;
use std::sync::Arc;

use lru::LruCache;

use super::blocks;
use super::fetch::fetch_floats;
use crate::error::Result;
use crate::source::SourceFile;
use crate::tensor::{Identity, Tensor};

/// Columns of a panel.
pub(super) const PANEL: usize = 64;

/// Larger factors are read as far as a reply needs them.
const LARGEST: u64 = 16 << 20;

/// A matrix in f32, and the files that it was read from.
pub(super) struct Factor {
    values: Vec<f32>,
    /// The first column that it has.
    pub start: u64,
    files: Vec<Arc<SourceFile>>,
}

impl Factor {
    /// The panels of a right factor: 64 columns of all rows each, the last one filled up with zeros.
    pub fn panels(&self, rank: usize) -> impl Iterator<Item = &[[f32; PANEL]]> {
        let (rows, _) = self.values.as_chunks();
        rows.chunks_exact(rank.max(1))
    }

    pub fn values(&self) -> &[f32] {
        &self.values
    }

    fn check(&self) -> Result<()> {
        let mut files = self.files.iter();
        files.try_for_each(|file| file.checked_handle().map(drop))
    }
}

/// What is kept of all mounts' factors, least recently used last.
pub(super) struct Factors {
    kept: LruCache<(Identity, u64), Arc<Factor>>,
    bytes: u64,
}

impl Default for Factors {
    fn default() -> Self {
        Self {
            kept: LruCache::unbounded(),
            bytes: 0,
        }
    }
}

impl Factors {
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn get(&mut self, key: &(Identity, u64)) -> Option<Arc<Factor>> {
        self.kept.get(key).cloned()
    }

    fn put(&mut self, key: (Identity, u64), factor: &Arc<Factor>, limit: u64) {
        let size = |factor: &Factor| 4 * factor.values.len() as u64 + 256;
        let own = size(factor);
        if own > limit {
            return;
        }
        while self.bytes + own > limit
            && let Some((_, gone)) = self.kept.pop_lru()
        {
            self.bytes = self.bytes.saturating_sub(size(&gone));
        }
        if let Some((_, replaced)) = self.kept.push(key, factor.clone()) {
            self.bytes = self.bytes.saturating_sub(size(&replaced));
        }
        self.bytes += own;
    }
}

/// The columns of a right factor in panels; all of them where that is not too much.
pub(super) fn right(tensor: &Tensor, columns: Range<u64>) -> Result<Arc<Factor>> {
    let (rank, width) = tensor.sides();
    let limit = blocks::limit_of_factors().min(LARGEST);
    if 4 * rank.saturating_mul(width) > limit {
        let values = packed(
            &fetch_floats(tensor, 0..rank, columns.clone())?,
            (columns.end - columns.start) as usize,
        );
        return Ok(Arc::new(Factor {
            values,
            start: columns.start,
            files: Vec::new(),
        }));
    }
    kept(tensor, 0, || {
        let floats = fetch_floats(tensor, 0..rank, 0..width)?;
        Ok(packed(&floats, width as usize))
    })
}

/// What `make` gives of part `number` of a tensor, made once as long as it is kept.
pub(super) fn kept(
    tensor: &Tensor,
    number: u64,
    make: impl FnOnce() -> Result<Vec<f32>>,
) -> Result<Arc<Factor>> {
    let key = (tensor.identity(), number);
    if let Some(factor) = blocks::with_factors(|factors, _| factors.get(&key)) {
        factor.check()?;
        return Ok(factor);
    }
    let mut files: Vec<Arc<SourceFile>> = Vec::new();
    tensor.each_stored(&mut |stored| {
        if !files.iter().any(|file| Arc::ptr_eq(file, stored.file())) {
            files.push(stored.file().clone());
        }
    });
    let factor = Arc::new(Factor {
        values: make()?,
        start: 0,
        files,
    });
    blocks::with_factors(|factors, limit| factors.put(key, &factor, limit));
    Ok(factor)
}

/// A matrix panel by panel.
fn packed(matrix: &[f32], width: usize) -> Vec<f32> {
    let width = width.max(1);
    let mut packed = Vec::with_capacity(matrix.len().next_multiple_of(PANEL));
    for start in (0..width).step_by(PANEL) {
        for row in matrix.chunks(width) {
            let part = row.get(start..width.min(start + PANEL)).unwrap_or_default();
            packed.extend_from_slice(part);
            packed.resize(packed.len() + PANEL - part.len(), 0.0);
        }
    }
    packed
}
