//! Plain copies: in source order, one scattering `preadv` for each stretch of a source file.

use std::cell::Cell;
use std::io::IoSliceMut;
use std::mem::take;
use std::ops::Range;
use std::sync::Arc;

use super::span::Span;
use super::{room, windows};
use crate::error::Result;
use crate::source::{SourceFile, Stretch};
use crate::tensor::Nest;

/// Longest gap between two copies that is read along with them: copying a page costs less than another system call.
const GAP: u64 = 4096;

/// Shorter stretches are left to the page cache, for which the kernel reads ahead: of one file, where several make a reply, and of
/// several files, whose shares of a reply follow each other closely.
const LONG: u64 = 64 << 10;
const LONG_SHARE: u64 = 192 << 10;

/// Most bytes of gaps that are read at once.
const MOST_WASTE: u64 = 1 << 20;

/// Copies that are less apart are handed on in about the same parts: they are noted together.
pub(super) const NEAR: u64 = 64 << 10;

thread_local! {
    /// Where gaps go.
    static WASTE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// `length` bytes at `source` of a file go to `destination` of the reply.
#[derive(Clone, Copy)]
pub(super) struct Copy<'a> {
    pub file: &'a Arc<SourceFile>,
    pub source: u64,
    pub destination: usize,
    pub length: usize,
}

impl<'a> Copy<'a> {
    /// The copy in pieces of at most so many bytes.
    pub fn pieces(self, most: usize) -> impl Iterator<Item = Copy<'a>> {
        (0..self.length).step_by(most).map(move |start| Copy {
            source: self.source + start as u64,
            destination: self.destination + start,
            length: most.min(self.length - start),
            ..self
        })
    }

    pub fn range(&self) -> Range<u64> {
        self.source..self.source_end()
    }

    fn source_end(&self) -> u64 {
        self.source + self.length as u64
    }

    fn in_source(&self) -> (*const SourceFile, u64) {
        (Arc::as_ptr(self.file), self.source)
    }

    pub fn is_of_file_of(&self, other: &Copy<'_>) -> bool {
        Arc::ptr_eq(self.file, other.file)
    }

    /// Bytes between this copy and a later one of the same file, if they are at most so many.
    pub fn gap_to(&self, next: &Copy<'_>, most: u64) -> Option<u64> {
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
    let slices = destinations(&mut copies, reply);
    let mut places: Vec<Destination> = copies.into_iter().zip(slices).collect();
    places.sort_unstable_by_key(|(copy, _)| copy.in_source());
    let mut others = windows::read(places)?;
    let mut waste = WASTE.take();
    let result = read_stretches(&mut others, &mut waste);
    WASTE.set(waste);
    result
}

/// Reads places, as many at a time as share a file and have gaps for which there is room.
fn read_stretches(places: &mut [Destination<'_, '_>], waste: &mut Vec<u8>) -> Result<()> {
    let mut files = places.chunk_by(|(a, _), (b, _)| a.is_of_file_of(b));
    let is_of_several_files = files.nth(1).is_some();
    let mut wasted = 0;
    let batches = places.chunk_by_mut(|(a, _), (b, _)| {
        wasted += a.gap_to(b, GAP).unwrap_or(0);
        let fits = a.is_of_file_of(b) && wasted <= MOST_WASTE;
        if !fits {
            wasted = 0;
        }
        fits
    });
    for batch in batches {
        let file = batch[0].0.file;
        let mut waste = room(waste, gaps(batch))?;
        let stretches = batch.chunk_by_mut(|(a, _), (b, _)| a.gap_to(b, GAP).is_some());
        let stretches = stretches.map(|stretch| slices_of(stretch, &mut waste));
        let mut stretches: Vec<_> = stretches.collect();
        let long = match stretches.len() {
            _ if is_of_several_files => LONG_SHARE,
            1 => 0,
            _ => LONG,
        };
        file.read_scattered(&mut stretches, long)?;
    }
    Ok(())
}

/// A copy and the part of the reply that it fills.
pub(super) type Destination<'a, 'r> = (Copy<'a>, &'r mut [u8]);

/// Where a stretch starts, and what its bytes fill one after the other.
fn slices_of<'r: 'w, 'w>(
    stretch: &mut [Destination<'_, 'r>],
    waste: &mut &'w mut [u8],
) -> Stretch<'w> {
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

/// Bytes of all gaps that are read along with sorted places.
fn gaps(places: &[Destination<'_, '_>]) -> usize {
    let pairs = places.iter().zip(places.iter().skip(1));
    let gaps = pairs.filter_map(|((a, _), (b, _))| a.gap_to(b, GAP));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::read_tensor_at;
    use crate::tensor::{Dtype, Shape, Tensor, contiguous};

    #[test]
    fn gaps_between_few_columns_take_little_memory() {
        let (rows, columns) = (4096, 2000);
        let bytes: Vec<u8> = (0..rows * columns).map(|at| (at % 251) as u8).collect();
        let source = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(source.path(), &bytes).unwrap();
        let source = SourceFile::open(&source.path().canonicalize().unwrap()).unwrap();
        let shape = Shape::new(&[rows, columns]).unwrap();
        let layout = contiguous(0, &shape);
        let whole = Tensor::stored(source, Dtype::U8, shape, layout).unwrap();
        let mut read = vec![0; 2 * rows as usize];
        read_tensor_at(&whole.narrow(1, 7, 2).unwrap(), 0, &mut read).unwrap();
        let rows = bytes.chunks(columns as usize);
        assert!(read.iter().eq(rows.flat_map(|row| &row[7..9])));
        assert!(WASTE.take().len() as u64 <= MOST_WASTE);
    }
}
