//! Reads of an object: small ones of metadata in pieces that later ones find in memory, long and foreseen ones of data in
//! blocks, and random ones as they are asked for.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::cache::{Block, cache};
use super::failure::Failure;
use super::object::Object;
use crate::error::Result;

/// Unit of data that is read in sequence. Shorter blocks spend their time on round trips, longer ones come late.
const BLOCK: u64 = 4 << 20;

/// Unit of metadata: the directory of an archive and the pickle before it lie in one or two of them.
const PIECE: u64 = 128 << 10;

/// Longest gap between two ranges of a reply that is fetched along with them: a round trip is worth more.
const GAP: u64 = 64 << 10;

/// A range that is at least this long is read in sequence whatever came before it.
const LONG: u64 = 1 << 20;

/// Blocks that were asked for, and whether the cache keeps them.
#[derive(Debug, Default)]
pub struct Begun(Vec<(Arc<Block>, bool)>);

/// The number of the next object that is opened: blocks are known by a number that no later file has.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// Whether any object was opened.
pub fn has_objects() -> bool {
    NEXT.load(Ordering::Relaxed) > 0
}

/// An object that is read.
#[derive(Debug)]
pub struct RemoteFile {
    object: Arc<Object>,
    id: u64,
}

impl RemoteFile {
    pub fn new(object: Object) -> Self {
        Self {
            object: Arc::new(object),
            id: NEXT.fetch_add(1, Ordering::Relaxed),
        }
    }

    pub fn object(&self) -> &Object {
        &self.object
    }

    /// # Errors
    /// When an answer was of another version than the one opened.
    pub fn check(&self) -> Result<()> {
        self.object.check().map_err(|failure| self.failed(failure))
    }

    /// Fills `buffer` with metadata from `offset` on.
    pub fn read_metadata(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let range = offset..offset.saturating_add(buffer.len() as u64);
        let unit = (range.end - range.start < LONG).then_some(PIECE);
        let begun = self.request(vec![(range, unit)])?;
        self.finish(&begun, &mut [(offset, buffer)])
    }

    /// Begins the requests for ranges of data, which are sorted.
    ///
    /// # Errors
    /// When the object is shorter, or known to be another one.
    pub fn begin(&self, ranges: &[Range<u64>]) -> Result<Begun> {
        let joined = join(ranges.iter().filter(|range| !range.is_empty()).cloned());
        let wanted = joined.into_iter().map(|range| {
            let unit = self.is_sequential(&range).then_some(BLOCK);
            (range, unit)
        });
        self.request(wanted.collect())
    }

    /// Begins to fetch the blocks of `range`, as many as there is room for.
    pub fn foresee(&self, range: Range<u64>) {
        let size = self.object.size();
        for block in units(&(range.start.min(size)..range.end.min(size)), BLOCK, size) {
            if !cache().foresee(&self.object, self.id, block) {
                return;
            }
        }
    }

    /// Whether a range is long, or lies in blocks that are there already or on their way: its reader was foreseen.
    fn is_sequential(&self, range: &Range<u64>) -> bool {
        let is_known = |block: Range<u64>| cache().known(self.id, &block).is_some();
        let mut blocks = units(range, BLOCK, self.object.size());
        range.end - range.start >= LONG || blocks.all(is_known)
    }

    /// Begins the requests for ranges, in units where one is given.
    fn request(&self, wanted: Vec<(Range<u64>, Option<u64>)>) -> Result<Begun> {
        self.check()?;
        let size = self.object.size();
        let end = wanted.iter().map(|(range, _)| range.end).max();
        if end.is_some_and(|end| end > size) {
            return Err(self.failed(Failure::Changed("shorter than before".to_owned())));
        }
        let mut blocks: Begun = Begun::default();
        for (range, unit) in wanted {
            match unit {
                None => blocks
                    .0
                    .push((cache().fetch_once(&self.object, range), false)),
                Some(unit) => {
                    for block in units(&range, unit, size) {
                        let block = cache().demand(&self.object, self.id, block);
                        blocks.0.push((block, true));
                    }
                }
            }
        }
        Ok(blocks)
    }

    /// Waits for requests that were begun, and fills memory, each at its offset, with their bytes.
    pub fn finish(&self, begun: &Begun, into: &mut [(u64, &mut [u8])]) -> Result<()> {
        let mut filled = Vec::with_capacity(begun.0.len());
        for (block, is_kept) in &begun.0 {
            match block.wait() {
                Ok(bytes) => filled.push((block.range().start, bytes)),
                Err(failure) => {
                    if *is_kept {
                        cache().forget(self.id, block);
                    }
                    return Err(self.failed(failure));
                }
            }
        }
        self.check()?;
        for (offset, memory) in &mut *into {
            copy(&filled, *offset, memory).ok_or_else(|| {
                self.failed(Failure::Broken("an answer that is too short".to_owned()))
            })?;
        }
        for ((block, is_kept), (start, bytes)) in begun.0.iter().zip(&filled) {
            if *is_kept {
                let delivered = delivered(into, *start, bytes.len() as u64);
                cache().delivered(self.id, block, delivered);
            }
        }
        Ok(())
    }

    fn failed(&self, failure: Failure) -> crate::error::Error {
        failure.at(self.object.path())
    }
}

/// Joins sorted ranges between which there is little.
fn join(ranges: impl Iterator<Item = Range<u64>>) -> Vec<Range<u64>> {
    let mut joined: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.start <= last.end.saturating_add(GAP) => {
                last.end = last.end.max(range.end);
            }
            _ => joined.push(range),
        }
    }
    joined
}

/// The units of an object that a range lies in.
fn units(range: &Range<u64>, unit: u64, size: u64) -> impl Iterator<Item = Range<u64>> + use<> {
    let numbers = match range.is_empty() {
        true => 0..0,
        false => range.start / unit..range.end.div_ceil(unit),
    };
    numbers.map(move |number| number * unit..((number + 1) * unit).min(size))
}

/// Copies bytes from `offset` on. `blocks` are sorted, and those that overlap agree. Returns `None` where one is missing.
fn copy(blocks: &[(u64, Bytes)], mut offset: u64, mut rest: &mut [u8]) -> Option<()> {
    while !rest.is_empty() {
        let after = blocks.partition_point(|(start, _)| *start <= offset);
        let (start, bytes) = blocks.get(after.checked_sub(1)?)?;
        let from = bytes.get(usize::try_from(offset - start).ok()?..)?;
        let count = from.len().min(rest.len());
        if count == 0 {
            return None;
        }
        let (front, back) = std::mem::take(&mut rest).split_at_mut(count);
        front.copy_from_slice(from.get(..count)?);
        offset += count as u64;
        rest = back;
    }
    Some(())
}

/// Bytes of the memory to fill that lie in a block.
fn delivered(into: &[(u64, &mut [u8])], start: u64, length: u64) -> u64 {
    let end = start.saturating_add(length);
    let parts = into.iter().map(|(offset, memory)| {
        let last = offset.saturating_add(memory.len() as u64).min(end);
        last.saturating_sub(start.max(*offset))
    });
    parts.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_are_close_are_fetched_as_one() {
        let joined = join([0..10, 20..30, 1 << 20..(1 << 20) + 5].into_iter());
        assert_eq!(joined, [0..30, 1 << 20..(1 << 20) + 5]);
    }

    #[test]
    fn units_end_with_the_object() {
        let found: Vec<_> = units(&(5..25), 10, 23).collect();
        assert_eq!(found, [0..10, 10..20, 20..23]);
        assert_eq!(units(&(5..5), 10, 23).count(), 0);
    }

    #[test]
    fn bytes_come_from_the_blocks_around_them() {
        let blocks = [
            (0, Bytes::from_static(b"0123")),
            (4, Bytes::from_static(b"45")),
        ];
        let mut read = [0; 4];
        copy(&blocks, 2, &mut read).unwrap();
        assert_eq!(&read, b"2345");
        let mut beyond = [0; 2];
        assert!(copy(&blocks, 5, &mut beyond).is_none());
    }
}
