//! Blocks of objects in memory, each fetched once however many readers want it, and the limit on streams at once.
//!
//! A block that is wanted stands in the cache before its bytes come: its first reader begins the request, all of them wait for
//! it. What was delivered whole goes first when room is needed, since the kernel keeps the reply under the mount's own name.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use lru::LruCache;
use tokio::sync::Semaphore;

use super::failure::{Attempt, Failure};
use super::object::Object;
use super::runtime;

/// Requests for bytes under way at once.
const STREAMS: usize = 64;

/// Memory of blocks, unless `--source-cache` says otherwise.
const USUAL: u64 = 256 << 20;

/// Object, first byte and end of a block.
type BlockId = (u64, u64, u64);

/// All blocks of the process.
pub struct Cache {
    held: Mutex<Held>,
    limit: AtomicU64,
    streams: Arc<Semaphore>,
}

struct Held {
    blocks: LruCache<BlockId, Arc<Block>>,
    bytes: u64,
}

/// A range of an object that is in memory or on its way.
#[derive(Debug)]
pub struct Block {
    range: Range<u64>,
    fill: Mutex<Fill>,
    filled: Condvar,
    delivered: AtomicU64,
}

#[derive(Debug, Clone)]
enum Fill {
    Pending,
    Whole(Bytes),
    Failed(Failure),
}

/// Returns the cache.
pub fn cache() -> &'static Cache {
    static CACHE: LazyLock<Cache> = LazyLock::new(|| Cache {
        held: Mutex::new(Held {
            blocks: LruCache::unbounded(),
            bytes: 0,
        }),
        limit: AtomicU64::new(USUAL),
        streams: Arc::new(Semaphore::new(STREAMS)),
    });
    &CACHE
}

impl Cache {
    /// Sets how many bytes of blocks are kept.
    pub fn set_limit(&self, bytes: u64) {
        self.limit.store(bytes, Ordering::Relaxed);
    }

    /// Returns how many bytes of blocks are kept.
    pub fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    /// Returns the block if it is there or on its way.
    pub fn known(&self, id: u64, range: &Range<u64>) -> Option<Arc<Block>> {
        self.held()
            .blocks
            .get(&(id, range.start, range.end))
            .cloned()
    }

    /// Returns the block, whose bytes come soon.
    pub fn demand(&self, object: &Arc<Object>, id: u64, range: Range<u64>) -> Arc<Block> {
        let begun = self.begin(object, id, &range, true);
        begun.unwrap_or_else(|| Arc::new(Block::pending(range)))
    }

    /// Begins to fetch a block that will be read soon. Returns whether there was room for it.
    pub fn foresee(&self, object: &Arc<Object>, id: u64, range: Range<u64>) -> bool {
        self.begin(object, id, &range, false).is_some()
    }

    fn begin(
        &self,
        object: &Arc<Object>,
        id: u64,
        range: &Range<u64>,
        is_demanded: bool,
    ) -> Option<Arc<Block>> {
        let key = (id, range.start, range.end);
        let mut held = self.held();
        if let Some(block) = held.blocks.get(&key) {
            return Some(block.clone());
        }
        let length = range.end.saturating_sub(range.start);
        let has_room = held.make_room(length, self.limit(), is_demanded);
        if !has_room && !is_demanded {
            return None;
        }
        let block = Arc::new(Block::pending(range.clone()));
        held.blocks.put(key, block.clone());
        held.bytes = held.bytes.saturating_add(length);
        drop(held);
        self.fill(object.clone(), block.clone());
        Some(block)
    }

    /// Fetches a block on the runtime.
    fn fill(&self, object: Arc<Object>, block: Arc<Block>) {
        let streams = self.streams.clone();
        let guard = Unfilled(block);
        let work = async move {
            let _permit = streams.acquire_owned().await;
            let fetched = object.fetch(guard.0.range.clone()).await;
            guard.0.set(fetched.map_or_else(Fill::Failed, Fill::Whole));
        };
        if let Ok(runtime) = runtime::handle() {
            runtime.spawn(work);
        }
    }

    /// Fetches a range that is not worth a block, and does not wait for it.
    pub fn fetch_once(&self, object: &Arc<Object>, range: Range<u64>) -> Arc<Block> {
        let block = Arc::new(Block::pending(range));
        self.fill(object.clone(), block.clone());
        block
    }

    /// Notes that `bytes` of a block were delivered; one that was delivered whole goes first.
    pub fn delivered(&self, id: u64, block: &Block, bytes: u64) {
        let length = block.range.end.saturating_sub(block.range.start);
        let before = block.delivered.fetch_add(bytes, Ordering::Relaxed);
        if before < length && before.saturating_add(bytes) >= length {
            let key = (id, block.range.start, block.range.end);
            self.held().blocks.demote(&key);
        }
    }

    /// Forgets a block that failed, so that the next read asks again.
    pub fn forget(&self, id: u64, block: &Block) {
        self.held()
            .remove(&(id, block.range.start, block.range.end));
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// Drops blocks until there is room for so many bytes. Those on their way stay, and for one that is only foreseen also those
    /// that were foreseen before and not read yet.
    fn make_room(&mut self, length: u64, limit: u64, is_demanded: bool) -> bool {
        let mut left = self.blocks.len();
        while self.bytes.saturating_add(length) > limit && left > 0 {
            left -= 1;
            let Some((key, block)) = self.blocks.pop_lru() else {
                break;
            };
            let is_unread = || !is_demanded && block.delivered.load(Ordering::Relaxed) == 0;
            match block.is_pending() || is_unread() {
                true => drop(self.blocks.put(key, block)),
                false => self.bytes = self.bytes.saturating_sub(key.2.saturating_sub(key.1)),
            }
        }
        self.bytes.saturating_add(length) <= limit
    }

    fn remove(&mut self, key: &BlockId) {
        if self.blocks.pop(key).is_some() {
            self.bytes = self.bytes.saturating_sub(key.2.saturating_sub(key.1));
        }
    }
}

impl Block {
    fn pending(range: Range<u64>) -> Self {
        Self {
            range,
            fill: Mutex::new(Fill::Pending),
            filled: Condvar::new(),
            delivered: AtomicU64::new(0),
        }
    }

    pub fn range(&self) -> &Range<u64> {
        &self.range
    }

    /// The bytes, once they are there.
    pub fn wait(&self) -> Attempt<Bytes> {
        let fill = self.lock();
        let is_pending = |fill: &mut Fill| matches!(fill, Fill::Pending);
        let fill = self.filled.wait_while(fill, is_pending);
        match &*fill.unwrap_or_else(PoisonError::into_inner) {
            Fill::Whole(bytes) => Ok(bytes.clone()),
            Fill::Failed(failure) => Err(failure.clone()),
            Fill::Pending => Err(abandoned()),
        }
    }

    fn is_pending(&self) -> bool {
        matches!(*self.lock(), Fill::Pending)
    }

    fn set(&self, fill: Fill) {
        *self.lock() = fill;
        self.filled.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Fill> {
        self.fill.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A block whose readers are told if its request ends without an outcome.
struct Unfilled(Arc<Block>);

impl Drop for Unfilled {
    fn drop(&mut self) {
        if self.0.is_pending() {
            self.0.set(Fill::Failed(abandoned()));
        }
    }
}

fn abandoned() -> Failure {
    Failure::Broken("a request that was given up".to_owned())
}
