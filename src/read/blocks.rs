//! Blocks of transposed tensors that are kept. A small piece of one touches as much of the source as a large piece does, so
//! blocks are produced whole, once, and kept while there is room.

use std::mem::take;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::block::{Block, Produce};
use crate::error::Result;
use crate::tensor::Tensor;

/// Idle time after which a block may be evicted: its reader has left it, or all of its readers have read it.
const LEFT: Duration = Duration::from_secs(1);
const LEFT_BY_ALL: Duration = Duration::from_millis(200);

/// A request so far behind another one is of another reader: more than the kernel asks for at once.
const BEHIND: u64 = 16 << 20;

/// A reader that has come beyond this part of a block will go on to the next. A rank that reads its half does not.
const BEGUN: u64 = 2;

/// The blocks that a mount keeps.
#[derive(Debug)]
pub(super) struct Blocks(Mutex<Cache>);

impl Blocks {
    /// Of at most `limit` bytes together with what else is `taken` of it.
    pub fn new(limit: u64, taken: Arc<AtomicU64>) -> Self {
        Self(Mutex::new(Cache {
            limit,
            entries: Vec::new(),
            taken,
        }))
    }

    /// Fills `target` with the bytes of `tensor` from `offset` on. `false`, where blocks of it do not fit the cache.
    pub fn read(
        &self,
        tensor: &Tensor,
        mut offset: u64,
        target: &mut [u8],
        produce: Produce<'_>,
    ) -> Result<bool> {
        let mut rest = target;
        while !rest.is_empty() {
            let wanted = self.cache().wanted(tensor, offset, rest.len() as u64)?;
            let Some(block) = wanted else {
                return Ok(false);
            };
            let length = (block.range.end - offset).min(rest.len() as u64);
            let (part, behind) = take(&mut rest).split_at_mut(length as usize);
            block.read(offset, part, produce)?;
            (rest, offset) = (behind, offset + length);
        }
        Ok(true)
    }

    /// After a tensor was read up to `end`: the block to produce next, where a single reader goes through the file from front
    /// to back. `following` is the transposed tensor behind this one.
    pub fn ahead(
        &self,
        tensor: &Tensor,
        end: u64,
        following: impl FnOnce() -> Option<Tensor>,
    ) -> Option<Arc<Block>> {
        let next = self.cache().end_of_begun(tensor, end)?;
        let (tensor, offset) = match next < tensor.bytes() {
            true => (tensor.clone(), next),
            false => (following()?, 0),
        };
        self.cache().ahead(&tensor, offset)
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A block, and how far its readers are.
#[derive(Debug)]
struct Entry {
    block: Arc<Block>,
    /// Where the furthest request ended.
    front: u64,
    handed_on: u64,
    has_several_readers: bool,
    used: Instant,
}

impl Entry {
    fn new(block: Block) -> Self {
        Self {
            front: block.range.start,
            block: Arc::new(block),
            handed_on: 0,
            has_several_readers: false,
            used: Instant::now(),
        }
    }

    fn is_of(&self, tensor: &Tensor, offset: u64) -> bool {
        self.block.identity == tensor.identity() && self.block.range.contains(&offset)
    }

    /// Hands on up to `length` bytes from `offset` on.
    fn hand_on(&mut self, offset: u64, length: u64) -> Arc<Block> {
        let end = self.block.range.end.min(offset + length);
        self.has_several_readers |= end + BEHIND < self.front;
        self.front = self.front.max(end);
        self.handed_on += end - offset;
        self.used = Instant::now();
        self.block.clone()
    }

    /// Whether it is being read or produced, or will be asked for again soon.
    fn is_in_use(&self) -> bool {
        let is_held = Arc::strong_count(&self.block) > 1;
        let is_begun = self.front < self.block.range.end && self.used.elapsed() < LEFT;
        let is_shared = self.has_several_readers && self.used.elapsed() < LEFT_BY_ALL;
        is_held || (is_begun || is_shared) && !self.block.identity.is_gone()
    }
}

#[derive(Debug)]
struct Cache {
    /// Bytes of all blocks together.
    limit: u64,
    /// Least recently used first.
    entries: Vec<Entry>,
    /// Bytes of the limit that inputs of kernels take.
    taken: Arc<AtomicU64>,
}

impl Cache {
    /// The block around `offset`, of which up to `length` bytes are handed on from there.
    fn wanted(&mut self, tensor: &Tensor, offset: u64, length: u64) -> Result<Option<Arc<Block>>> {
        let mut entries = self.entries.iter();
        let entry = match entries.rposition(|entry| entry.is_of(tensor, offset)) {
            Some(at) => Some(self.entries.remove(at)),
            None => self.begin_for(tensor, offset, length)?,
        };
        Ok(entry.map(|mut entry| {
            let block = entry.hand_on(offset, length);
            self.entries.push(entry);
            block
        }))
    }

    /// A block for a request: as large as is fair to all who read. One that is smaller than the request saves nothing.
    fn begin_for(&mut self, tensor: &Tensor, offset: u64, length: u64) -> Result<Option<Entry>> {
        let mut read = vec![tensor.identity()];
        for entry in self.in_use() {
            if !read.contains(&entry.block.identity) {
                read.push(entry.block.identity.clone());
            }
        }
        let readers = read.len() as u64;
        match self.room().min(self.limit / readers) {
            limit if limit < length => Ok(None),
            limit => self.begin(tensor, offset, limit),
        }
    }

    /// Where the block ends in which a lone reader has come up to `end` of a tensor, if it goes on like this.
    fn end_of_begun(&self, tensor: &Tensor, end: u64) -> Option<u64> {
        let mut entries = self.entries.iter();
        let read = entries.rfind(|entry| entry.is_of(tensor, end.saturating_sub(1)))?;
        let range = &read.block.range;
        let done = end - range.start;
        let is_begun = read.handed_on >= done && done * BEGUN > range.end - range.start;
        let is_single_reader = self
            .in_use()
            .all(|entry| entry.block.identity == read.block.identity);
        (is_begun && is_single_reader).then_some(range.end)
    }

    /// A block before it is first asked for, unless it is there or there is no room.
    fn ahead(&mut self, tensor: &Tensor, offset: u64) -> Option<Arc<Block>> {
        if self.entries.iter().any(|entry| entry.is_of(tensor, offset)) {
            return None;
        }
        let entry = self.begin(tensor, offset, self.room()).ok()??;
        let block = entry.block.clone();
        self.entries.push(entry);
        Some(block)
    }

    /// A block of at most `limit` bytes, and of half of what is kept in all. None where that is too few.
    fn begin(&mut self, tensor: &Tensor, offset: u64, limit: u64) -> Result<Option<Entry>> {
        let Some(block) = Block::around(tensor, offset, limit.min(self.limit / 2))? else {
            return Ok(None);
        };
        let gone = self.make_room(block.cost());
        Ok(Some(Entry::new(block.in_memory_of(gone))))
    }

    /// Bytes of the limit that blocks in use leave.
    fn room(&self) -> u64 {
        let taken: u64 = self.in_use().map(|entry| entry.block.cost()).sum();
        let taken = taken + self.taken.load(Ordering::Relaxed);
        self.limit.saturating_sub(taken)
    }

    fn in_use(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.is_in_use())
    }

    /// Takes out what is not in use where another block of `cost` bytes needs its room.
    fn make_room(&mut self, cost: u64) -> Vec<Block> {
        let mut held = self.held();
        let limit = self.limit;
        let gone = self.entries.extract_if(.., |entry| {
            let goes = held + cost > limit && !entry.is_in_use();
            if goes {
                held -= entry.block.cost();
            }
            goes
        });
        gone.filter_map(|entry| Arc::into_inner(entry.block))
            .collect()
    }

    fn held(&self) -> u64 {
        let blocks: u64 = self.entries.iter().map(|entry| entry.block.cost()).sum();
        blocks + self.taken.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::Reader;
    use crate::source::SourceFile;
    use crate::tensor::{Dtype, Shape, contiguous};

    const MIB: u64 = 1 << 20;

    /// Transposed matrices of 1 MiB each.
    fn transposed(count: u64) -> Vec<Tensor> {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(count * MIB).unwrap();
        let file = SourceFile::open(file.path()).unwrap();
        let shape = Shape::new(&[count, 1024, 1024]).unwrap();
        let layout = contiguous(0, &shape);
        let stored = Tensor::stored(file, Dtype::U8, shape, layout).unwrap();
        let one = |number| stored.narrow(0, number, 1).unwrap().transpose().unwrap();
        (0..count).map(one).collect()
    }

    fn cache(limit: u64) -> Cache {
        Cache {
            limit,
            entries: Vec::new(),
            taken: Arc::default(),
        }
    }

    fn produce(tensor: &Tensor, slab: &mut [u8]) -> Result<()> {
        Reader::default().read_tensor_at(tensor, 0, slab)
    }

    #[test]
    fn blocks_that_are_being_read_stay_and_fit_the_limit() {
        let (tensors, mut cache) = (transposed(40), cache(5 * MIB));
        let mut begun = Vec::new();
        for tensor in &tensors {
            begun.extend(
                cache
                    .wanted(tensor, 0, 10)
                    .unwrap()
                    .map(|block| (tensor, block)),
            );
            assert!(cache.held() <= cache.limit);
        }
        assert!(begun.len() > 8);
        for (tensor, block) in begun {
            let again = cache.wanted(tensor, 10, 10).unwrap().unwrap();
            assert!(Arc::ptr_eq(&again, &block));
        }
    }

    #[test]
    fn a_block_that_is_held_or_read_by_several_is_in_use() {
        let (tensors, mut cache) = (transposed(2), cache(5 * MIB));
        let block = cache.wanted(&tensors[0], 0, MIB).unwrap();
        assert_eq!(cache.in_use().count(), 1);
        drop(block);
        assert_eq!(cache.in_use().count(), 0);
        cache.wanted(&tensors[0], 0, 1000).unwrap();
        assert_eq!(cache.in_use().count(), 0);
        let entry = &mut cache.entries[0];
        entry.front += BEHIND;
        entry.hand_on(0, 1000);
        assert_eq!(cache.in_use().count(), 1);
    }

    #[test]
    fn a_block_that_was_produced_keeps_no_source_open() {
        let (tensors, mut cache) = (transposed(1), cache(5 * MIB));
        let block = cache.wanted(&tensors[0], 0, 10).unwrap().unwrap();
        block.read(0, &mut [0; 10], &produce).unwrap();
        drop(tensors);
        assert!(block.identity.is_gone());
        drop(block);
        assert_eq!(cache.in_use().count(), 0);
    }

    #[test]
    fn the_transposed_tensor_behind_the_last_block_is_begun_too() {
        let tensors = transposed(2);
        let (tensor, following) = (&tensors[0], &tensors[1]);
        let blocks = Blocks::new(5 * MIB, Arc::default());
        let mut bytes = vec![0; MIB as usize];
        assert!(blocks.read(tensor, 0, &mut bytes, &produce).unwrap());
        assert!(
            blocks
                .ahead(tensor, MIB, || Some(following.clone()))
                .is_some()
        );
        let is_there = |entry: &Entry| entry.is_of(following, 0);
        assert!(blocks.cache().entries.iter().any(is_there));
    }

    #[test]
    fn what_was_read_makes_room_for_whole_matrices_but_not_what_is_read() {
        let (tensors, mut cache) = (transposed(20), cache(5 * MIB));
        let (read, tensors) = tensors.split_first().unwrap();
        let held = cache.wanted(read, 0, MIB).unwrap().unwrap();
        for tensor in tensors {
            let block = cache.wanted(tensor, 0, MIB).unwrap().unwrap();
            assert_eq!(block.range, 0..MIB);
            assert!(cache.held() <= cache.limit);
        }
        assert!(
            cache
                .entries
                .iter()
                .any(|entry| Arc::ptr_eq(&entry.block, &held))
        );
    }

    #[test]
    fn a_lone_reader_that_goes_from_front_to_back_has_the_next_block_begun() {
        let (tensors, mut cache) = (transposed(2), cache(MIB));
        let (tensor, other) = (&tensors[0], &tensors[1]);
        let end = cache.wanted(tensor, 0, 1000).unwrap().unwrap().range.end;
        assert_eq!(cache.end_of_begun(tensor, 1000), None);
        let length = end / BEGUN;
        cache.wanted(tensor, 1000, length).unwrap().unwrap();
        assert_eq!(cache.end_of_begun(tensor, length), None);
        assert_eq!(cache.end_of_begun(tensor, 1000 + length), Some(end));
        assert!(cache.ahead(tensor, end).is_some());
        assert!(cache.ahead(tensor, end).is_none());
        // One that jumped, and one of two.
        assert_eq!(cache.end_of_begun(tensor, end - 1), None);
        cache.wanted(other, 0, 1000).unwrap().unwrap();
        assert_eq!(cache.end_of_begun(tensor, 1000 + length), None);
    }
}
