//! Plain copies: in source order, one scattering `preadv` for each stretch of a source file.

use std::cell::RefCell;
use std::io::IoSliceMut;
use std::mem::take;
use std::ops::Range;
use std::sync::Arc;

use super::span::Span;
use super::windows::{self, Windows};
use crate::error::Result;
use crate::tensor::{Nest, SourceFile};

/// Longest gap between two copies that is read along with them: copying a page costs less than another system call.
const GAP: u64 = 4096;

/// Copies that are less apart are handed on in about the same parts: they are noted together.
const NEAR: u64 = 64 << 10;

/// Longer rows are read each by itself.
const LONG: u64 = 64 << 10;

thread_local! {
    /// Where gaps go.
    static WASTE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// `length` bytes at `source` of a file go to `destination` of the reply.
#[derive(Clone, Copy)]
pub(super) struct Copy<'a> {
    pub file: &'a Arc<SourceFile>,
    pub source: u64,
    pub destination: usize,
    pub length: usize,
}

impl Copy<'_> {
    pub fn range(&self) -> Range<u64> {
        self.source..self.source_end()
    }

    /// What it fills of the reply.
    pub fn filled(&self) -> Range<usize> {
        self.destination..self.destination + self.length
    }

    fn source_end(&self) -> u64 {
        self.source + self.length as u64
    }

    fn in_source(&self) -> (*const SourceFile, u64) {
        (Arc::as_ptr(self.file), self.source)
    }

    fn is_of_file_of(&self, other: &Copy<'_>) -> bool {
        Arc::ptr_eq(self.file, other.file)
    }

    /// Bytes between this copy and a later one of the same file, if they are at most so many.
    fn gap_to(&self, next: &Copy<'_>, most: u64) -> Option<u64> {
        let gap = next.source.checked_sub(self.source_end())?;
        (self.is_of_file_of(next) && gap <= most).then_some(gap)
    }
}

/// The copies that a nest with a contiguous innermost loop stands for.
pub(super) fn expand<'a>(nest: &Nest<'a>, destination: usize, copies: &mut Vec<Copy<'a>>) {
    let unit = nest.unit();
    nest.each_run(&mut |source, offset, count| {
        copies.push(Copy {
            file: nest.stored.file(),
            source: nest.source + source * unit,
            destination: destination + ((nest.destination + offset) * unit) as usize,
            length: (count * unit) as usize,
        });
    });
}

/// Joins copies that continue each other in the source and in the reply, across tensors too.
pub(super) fn join(copies: &mut Vec<Copy<'_>>) {
    copies.dedup_by(|next, last| {
        let joins = last.is_of_file_of(next)
            && last.source_end() == next.source
            && last.destination + last.length == next.destination;
        if joins {
            last.length += next.length;
        }
        joins
    });
}

/// Carries out copies whose destinations do not overlap.
pub(super) fn execute(mut copies: Vec<Copy<'_>>, reply: &mut [u8]) -> Result<()> {
    let mut waste = WASTE.take();
    waste.resize(waste.len().max(gaps(&mut copies)), 0);
    let result = read_places(copies, reply, &mut waste);
    WASTE.set(waste);
    result
}

fn read_places<'r>(
    mut copies: Vec<Copy<'_>>,
    reply: &'r mut [u8],
    mut waste: &'r mut [u8],
) -> Result<()> {
    let slices = destinations(&mut copies, reply);
    let mut places: Vec<Place> = copies.into_iter().zip(slices).collect();
    places.sort_unstable_by_key(|(copy, _)| copy.in_source());
    let reply = Reply::of(&places);
    let regions = places.chunk_by_mut(|(a, _), (b, _)| a.gap_to(b, NEAR).is_some());
    let (windowed, mut others): (Vec<_>, Vec<_>) =
        regions.partition(|region| reply.suits_windows(region));
    for (file, range) in windowed.iter().filter_map(|region| around(region)) {
        windows::read_free(file, range)?;
    }
    for region in windowed {
        if !read_windows(region)? {
            others.push(region);
        }
    }
    for regions in others.chunk_by_mut(|a, b| a[0].0.is_of_file_of(&b[0].0)) {
        let file = regions[0][0].0.file;
        let stretches = regions
            .iter_mut()
            .flat_map(|region| region.chunk_by_mut(|(a, _), (b, _)| a.gap_to(b, GAP).is_some()));
        let stretches = stretches.map(|stretch| slices_of(stretch, &mut waste));
        file.read_scattered(&mut stretches.collect::<Vec<_>>())?;
    }
    Ok(())
}

/// What the parts of a reply are judged by.
struct Reply {
    bytes: u64,
    is_of_several_files: bool,
}

impl Reply {
    /// The places are sorted by source.
    fn of(places: &[Place<'_, '_>]) -> Self {
        let ends = (places.first(), places.last());
        let is_of_several_files =
            matches!(ends, (Some((a, _)), Some((b, _))) if !a.is_of_file_of(b));
        Self {
            bytes: bytes(places),
            is_of_several_files,
        }
    }

    /// Whether the replies before and after need what lies around the copies of a region, and the page cache holds nothing of it:
    /// about every other row, or one file's share of a reply, one stretch that is short for a read.
    fn suits_windows(&self, region: &[Place<'_, '_>]) -> bool {
        let Some((file, range)) = around(region) else {
            return false;
        };
        let (length, bytes) = (range.end - range.start, bytes(region));
        let are_rows = bytes < region.len() as u64 * LONG && 4 * self.bytes > Windows::SIZE;
        let is_half = bytes < length && length < 3 * bytes;
        let is_short = (Windows::SIZE / 8..=Windows::SIZE / 4).contains(&bytes);
        let is_share = self.is_of_several_files && bytes == length && is_short;
        (are_rows && is_half || is_share) && file.is_read_past_cache(range)
    }
}

fn bytes(places: &[Place<'_, '_>]) -> u64 {
    places.iter().map(|(copy, _)| copy.length as u64).sum()
}

/// The file and the range that a region lies in.
fn around<'a>(region: &[Place<'a, '_>]) -> Option<(&'a SourceFile, Range<u64>)> {
    let ((first, _), (last, _)) = (region.first()?, region.last()?);
    Some((first.file, first.source..last.source_end()))
}

fn read_windows(region: &mut [Place<'_, '_>]) -> Result<bool> {
    let Some((file, _)) = around(region) else {
        return Ok(true);
    };
    let mut windows = Windows::of(file);
    for (copy, target) in region {
        if !windows.read(copy.source, target)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A copy and the part of the reply that it fills.
type Place<'a, 'r> = (Copy<'a>, &'r mut [u8]);

/// Where a stretch starts, and what its bytes fill one after the other.
fn slices_of<'r>(
    stretch: &mut [Place<'_, 'r>],
    waste: &mut &'r mut [u8],
) -> (u64, Vec<IoSliceMut<'r>>) {
    let start = stretch[0].0.source;
    let mut end = start;
    let mut slices = Vec::with_capacity(stretch.len());
    for (copy, target) in stretch {
        let gap = (copy.source - end) as usize;
        if gap > 0 {
            let (gap, rest) = take(waste).split_at_mut(gap);
            slices.push(IoSliceMut::new(gap));
            *waste = rest;
        }
        slices.push(IoSliceMut::new(take(target)));
        end = copy.source_end();
    }
    (start, slices)
}

/// What each file is read in. Sorts the copies by source.
pub(super) fn spans(copies: &mut [Copy<'_>]) -> impl Iterator<Item = Span> {
    copies.sort_unstable_by_key(Copy::in_source);
    let stretches = copies.chunk_by(|a, b| a.gap_to(b, NEAR).is_some());
    stretches.filter_map(|stretch| {
        let (first, last) = (stretch.first()?, stretch.last()?);
        Some(Span {
            file: first.file.clone(),
            range: first.source..last.source_end(),
            bytes: stretch.iter().map(|copy| copy.length as u64).sum(),
        })
    })
}

/// Bytes of all gaps that are read along. Sorts the copies by source.
fn gaps(copies: &mut [Copy<'_>]) -> usize {
    copies.sort_unstable_by_key(Copy::in_source);
    let pairs = copies.iter().zip(copies.iter().skip(1));
    let gaps = pairs.filter_map(|(a, b)| a.gap_to(b, GAP));
    gaps.sum::<u64>() as usize
}

/// The part of the reply that each copy fills. Sorts the copies by destination.
fn destinations<'r>(copies: &mut [Copy<'_>], mut reply: &'r mut [u8]) -> Vec<&'r mut [u8]> {
    copies.sort_by_key(|copy| copy.destination);
    let mut start = 0;
    copies
        .iter()
        .map(|copy| {
            let (_, rest) = take(&mut reply).split_at_mut(copy.destination - start);
            let (part, rest) = rest.split_at_mut(copy.length);
            (reply, start) = (rest, copy.destination + copy.length);
            part
        })
        .collect()
}
