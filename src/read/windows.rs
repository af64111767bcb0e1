//! Windows of source files whose bytes go to several replies, such as the heads of a tensor in rotary order: read past the page
//! cache, whole, once, and kept for the next few replies.

use std::mem::take;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use lru::LruCache;

use super::scatter::{Destination, NEAR};
use crate::error::Result;
use crate::source::{DirectBuffer, SourceFile};

/// Those of the replies that are under way, and of those before.
const KEPT: NonZeroUsize = NonZeroUsize::new(16).unwrap();

/// Bytes of a window: about as many as the rows of a reply are spread over.
const SIZE: u64 = DirectBuffer::MAX_LENGTH;

/// Replies that are shorter read less than windows would.
const SHORT: u64 = SIZE / 4;

/// Longer rows are read each by itself.
const LONG: u64 = 64 << 10;

/// Read by the first who needs it, for whom the others wait.
type Window = Arc<Mutex<Option<Arc<DirectBuffer>>>>;

/// Fills those of a reply's places that windows suit, and returns the others. They are sorted by source.
pub(super) fn read<'a, 'r>(
    mut places: Vec<Destination<'a, 'r>>,
) -> Result<Vec<Destination<'a, 'r>>> {
    if bytes(&places) <= SHORT {
        return Ok(places);
    }
    let regions = places.chunk_by_mut(|(a, _), (b, _)| a.gap_to(b, NEAR).is_some());
    let (suited, mut others): (Vec<_>, Vec<_>) = regions.partition(|region| suit(region));
    for (file, range) in suited.iter().filter_map(|region| around(region)) {
        read_free(file, range)?;
    }
    for region in suited {
        if !fill(region)? {
            others.push(region);
        }
    }
    let others = others.into_iter().flatten();
    Ok(others.map(|(copy, target)| (*copy, take(target))).collect())
}

/// Whether the replies before and after need what lies between the copies of a region, about every other row, and the page cache
/// holds nothing of it.
fn suit(region: &[Destination<'_, '_>]) -> bool {
    let Some((file, range)) = around(region) else {
        return false;
    };
    let (length, bytes) = (range.end - range.start, bytes(region));
    let are_rows = bytes < region.len() as u64 * LONG;
    let are_half = bytes < length && length < 3 * bytes;
    are_rows && are_half && file.uses_direct_io(range)
}

fn bytes(places: &[Destination<'_, '_>]) -> u64 {
    places.iter().map(|(copy, _)| copy.length as u64).sum()
}

/// The file and the range that a region lies in.
fn around<'a>(region: &[Destination<'a, '_>]) -> Option<(&'a SourceFile, Range<u64>)> {
    let ((first, _), (last, _)) = (region.first()?, region.last()?);
    Some((first.file, first.source..last.range().end))
}

/// Fills a region's places. `false` where the file is not read past the page cache.
fn fill(region: &mut [Destination<'_, '_>]) -> Result<bool> {
    let mut held: Option<(u64, Arc<DirectBuffer>)> = None;
    for (copy, target) in region {
        for number in numbers(&copy.range()) {
            if held.as_ref().is_none_or(|(last, _)| *last != number) {
                held = landed(copy.file, number)?.map(|landed| (number, landed));
            }
            let Some((_, landed)) = &held else {
                return Ok(false);
            };
            let start = number * SIZE;
            let part = copy.source.max(start)..copy.range().end.min(start + SIZE);
            let to = (part.start - copy.source) as usize..(part.end - copy.source) as usize;
            let from = (part.start - start) as usize..(part.end - start) as usize;
            target[to].copy_from_slice(&landed[from]);
        }
    }
    Ok(true)
}

/// Reads those windows around a range that nobody is reading: who would wait for one reads another.
fn read_free(file: &SourceFile, range: Range<u64>) -> Result<()> {
    for number in numbers(&range) {
        if let Ok(mut landed) = window(file, number).try_lock() {
            land(file, number, &mut landed)?;
        }
    }
    Ok(())
}

fn landed(file: &SourceFile, number: u64) -> Result<Option<Arc<DirectBuffer>>> {
    let window = window(file, number);
    let mut landed = window.lock().unwrap_or_else(PoisonError::into_inner);
    land(file, number, &mut landed)?;
    Ok(landed.clone())
}

fn land(file: &SourceFile, number: u64, landed: &mut Option<Arc<DirectBuffer>>) -> Result<()> {
    if landed.is_none() {
        let start = number * SIZE;
        let range = start..file.size().min(start + SIZE);
        *landed = file.read_direct(range)?.map(Arc::new);
    }
    Ok(())
}

fn window(file: &SourceFile, number: u64) -> Window {
    static WINDOWS: LazyLock<Mutex<LruCache<(u64, u64), Window>>> =
        LazyLock::new(|| Mutex::new(LruCache::new(KEPT)));
    let mut windows = WINDOWS.lock().unwrap_or_else(PoisonError::into_inner);
    let key = (file.id(), number);
    windows.get_or_insert(key, Window::default).clone()
}

fn numbers(range: &Range<u64>) -> Range<u64> {
    range.start / SIZE..range.end.div_ceil(SIZE)
}
