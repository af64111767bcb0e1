//! Blocks of transposed tensors. A small piece of one touches as much of the source as a large piece does, so blocks are
//! produced whole, once, and kept while there is room.

use std::mem::take;
use std::ops::Range;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;

use lru::LruCache;

use super::{read_tensor_at, room};
use crate::error::{Error, Result};
use crate::parallel::usual_threads;
use crate::tensor::Tensor;

/// Bytes of a source row that a block takes at a time, where that many rows of output fit a block: reads of a page.
const PIECE: u64 = 4096;

/// A block takes at most this part of the cache.
const SHARE: u64 = 4;

/// Rows of output come in multiples of this many: whole lines of the processor's cache in the source.
const ROWS: u64 = 64;

/// Most threads that produce one block.
const PARTS: usize = 4;

static LIMIT: AtomicU64 = AtomicU64::new(128 << 20);

/// How many bytes of produced blocks are kept; with 0 every request is produced by itself.
pub fn set_cache_size(bytes: u64) {
    LIMIT.store(bytes, Ordering::Relaxed);
}

/// Fills `target` with the bytes of `tensor` from `offset` on. `false`, and nothing done, where blocks of it do not fit
/// the cache.
pub(super) fn read(tensor: &Tensor, offset: u64, target: &mut [u8]) -> Result<bool> {
    let Some(size) = block_size(tensor) else {
        return Ok(false);
    };
    let end = offset + target.len() as u64;
    let mut done = 0;
    for number in offset / size..end.div_ceil(size) {
        let block = cache().block(tensor, number, size);
        let from = offset.max(block.range.start);
        let length = (end.min(block.range.end) - from) as usize;
        let skipped = (from - block.range.start) as usize;
        let bytes = block.bytes()?;
        target[done..done + length].copy_from_slice(&bytes[skipped..skipped + length]);
        done += length;
    }
    produce_ahead(tensor, end, size);
    Ok(true)
}

/// Bytes of a block: as many whole rows of output as make the pieces of source rows long enough.
fn block_size(tensor: &Tensor) -> Option<u64> {
    let limit = LIMIT.load(Ordering::Relaxed) / SHARE;
    let sizes = tensor.shape().dims();
    let row = sizes.last()? * tensor.unit();
    let matrix = sizes.iter().rev().take(2).product::<u64>() * tensor.unit();
    let wanted = (PIECE / tensor.unit()).saturating_mul(row).min(limit);
    let part = match () {
        () if matrix <= wanted => matrix,
        () if row * ROWS <= wanted => row * ROWS,
        () => row,
    };
    (part > 0 && part <= limit).then(|| part * (wanted / part).max(1))
}

/// Starts on the next block where a reader goes through the tensor from front to back.
fn produce_ahead(tensor: &Tensor, end: u64, size: u64) {
    let (number, inside) = (end / size, end % size);
    let next = number + 1;
    if inside < size / 16
        || next * size >= tensor.bytes()
        || !cache().is_read_through(tensor, number)
    {
        return;
    }
    let block = cache().block(tensor, next, size);
    // Without a thread the reader produces it when it gets there.
    thread::Builder::new()
        .spawn(move || block.bytes().map(drop))
        .ok();
}

/// A stretch of a tensor's bytes, produced by the first who needs them.
struct Block {
    tensor: Tensor,
    range: Range<u64>,
    bytes: Mutex<Option<Arc<Vec<u8>>>>,
}

impl Block {
    fn bytes(&self) -> Result<Arc<Vec<u8>>> {
        let mut produced = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bytes) = &*produced {
            return Ok(bytes.clone());
        }
        let mut bytes = take(&mut *spare());
        let length = (self.range.end - self.range.start) as usize;
        self.produce(room(&mut bytes, length)?)?;
        bytes.truncate(length);
        Ok(produced.insert(bytes.into()).clone())
    }

    /// By several threads, each of which still reads long enough pieces of source rows.
    fn produce(&self, bytes: &mut [u8]) -> Result<()> {
        let threads = usual_threads().get().min(PARTS);
        let line = self.tensor.shape().dims().last().unwrap_or(&1) * self.tensor.unit() * ROWS;
        let part = bytes
            .len()
            .div_ceil(threads)
            .next_multiple_of(line as usize);
        thread::scope(|scope| {
            let starts = (self.range.start..).step_by(part);
            let parts = bytes.chunks_mut(part).zip(starts);
            let workers: Vec<_> = parts
                .map(|(part, start)| {
                    let work = move || read_tensor_at(&self.tensor, start, part);
                    thread::Builder::new().spawn_scoped(scope, work)
                })
                .collect();
            workers.into_iter().try_for_each(|worker| {
                let worker = worker.map_err(|error| Error::io("threads".as_ref(), error))?;
                worker.join().unwrap_or_else(|panic| resume_unwind(panic))
            })
        })
    }

    /// Its bytes, and about what it takes to keep track of it.
    fn cost(&self) -> u64 {
        self.range.end - self.range.start + 512
    }
}

/// The memory of the last block that nobody needs any more: pages that were touched before cost nothing.
fn spare() -> MutexGuard<'static, Vec<u8>> {
    static SPARE: Mutex<Vec<u8>> = Mutex::new(Vec::new());
    SPARE.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Block {
    fn drop(&mut self) {
        let bytes = self.bytes.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(bytes) = bytes.take().and_then(Arc::into_inner) {
            *spare() = bytes;
        }
    }
}

/// A tensor's identity and the number of a block. The block keeps the tensor alive, and so its identity its own.
type Key = (usize, u64);

struct Cache {
    blocks: LruCache<Key, Arc<Block>>,
    held: u64,
}

impl Cache {
    fn block(&mut self, tensor: &Tensor, number: u64, size: u64) -> Arc<Block> {
        let key = (tensor.identity(), number);
        if let Some(block) = self.blocks.get(&key) {
            return block.clone();
        }
        let start = number * size;
        let block = Arc::new(Block {
            tensor: tensor.clone(),
            range: start..tensor.bytes().min(start + size),
            bytes: Mutex::new(None),
        });
        self.held += block.cost();
        self.blocks.put(key, block.clone());
        self.shrink();
        block
    }

    fn shrink(&mut self) {
        let limit = LIMIT.load(Ordering::Relaxed);
        while self.held > limit
            && let Some((_, block)) = self.blocks.pop_lru()
        {
            self.held -= block.cost();
        }
    }

    /// Whether the block before is there as well and the next is not.
    fn is_read_through(&self, tensor: &Tensor, number: u64) -> bool {
        let has = |number| self.blocks.contains(&(tensor.identity(), number));
        (number == 0 || has(number - 1)) && !has(number + 1)
    }
}

fn cache() -> MutexGuard<'static, Cache> {
    static CACHE: LazyLock<Mutex<Cache>> = LazyLock::new(|| {
        let blocks = LruCache::unbounded();
        Mutex::new(Cache { blocks, held: 0 })
    });
    CACHE.lock().unwrap_or_else(PoisonError::into_inner)
}
