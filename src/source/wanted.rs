//! Ranges of source files that a reply wants, and the memory that each is to fill.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::mem::take;
use std::ops::Range;
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::uio::preadv;

use super::file::SourceFile;
use super::mechanism::Mechanism;
use super::route::LONG;

/// A range of a file, and the memory that its bytes fill.
#[derive(Debug)]
pub struct Wanted<'f, 'b> {
    pub file: &'f Arc<SourceFile>,
    pub offset: u64,
    pub into: &'b mut [u8],
}

/// Longest gap between two ranges that is read along with them: copying a page costs less than another system call.
const GAP: u64 = 4096;

/// Ranges that one `preadv` fills at most: half of `IOV_MAX`, as each may have a gap before it.
pub(super) const MAX_RANGES: usize = 512;

impl Wanted<'_, '_> {
    pub(super) fn bytes(&self) -> u64 {
        self.into.len() as u64
    }

    fn end(&self) -> u64 {
        self.offset + self.bytes()
    }

    /// The order in which ranges are read.
    pub(super) fn position(&self) -> (usize, u64) {
        (self.file.id(), self.offset)
    }

    pub(super) fn is_of_file_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(self.file, other.file)
    }

    /// Returns whether `next` lies so close behind that the gap is read along.
    pub(super) fn is_close_to(&self, next: &Self) -> bool {
        let longest = if Mechanism::Gaps.is_on() { GAP } else { 0 };
        self.gap_to(next).is_some_and(|gap| gap <= longest)
    }

    /// Returns whether both are delivered in about the same parts.
    pub(super) fn is_near(&self, next: &Self) -> bool {
        self.gap_to(next).is_some_and(|gap| gap <= LONG)
    }

    fn gap_to(&self, next: &Self) -> Option<u64> {
        let gap = next.offset.checked_sub(self.end())?;
        self.is_of_file_of(next).then_some(gap)
    }

    /// Fills what lies in `bytes`, which begin at `start` of the file.
    pub(super) fn take_from(&mut self, start: u64, bytes: &[u8]) {
        let end = start + bytes.len() as u64;
        let (from, to) = (self.offset.max(start), self.end().min(end));
        let inside = |origin: u64| {
            Some((from.checked_sub(origin)?) as usize..(to.checked_sub(origin)?) as usize)
        };
        if from < to
            && let (Some(source), Some(target)) = (inside(start), inside(self.offset))
            && let (Some(source), Some(target)) = (bytes.get(source), self.into.get_mut(target))
        {
            target.copy_from_slice(source);
        }
    }
}

/// Bytes of several ranges.
pub(super) fn bytes(wanted: &[Wanted<'_, '_>]) -> u64 {
    wanted.iter().map(Wanted::bytes).sum()
}

/// From the start of the first of several sorted ranges to the end of the last.
pub(super) fn span(wanted: &[Wanted<'_, '_>]) -> Range<u64> {
    match (wanted.first(), wanted.last()) {
        (Some(first), Some(last)) => first.offset..last.end(),
        _ => 0..0,
    }
}

/// Bytes of the gaps between close ranges.
pub(super) fn gaps(wanted: &[Wanted<'_, '_>]) -> u64 {
    let span = span(wanted);
    (span.end - span.start).saturating_sub(bytes(wanted))
}

/// Fills close ranges by one `preadv`, and `waste` with the gaps between them.
pub(super) fn read_close(
    file: &File,
    wanted: &mut [Wanted<'_, '_>],
    mut waste: &mut [u8],
) -> io::Result<()> {
    let start = span(wanted).start;
    let mut end = start;
    let mut slices = Vec::with_capacity(2 * wanted.len());
    for wanted in wanted {
        let gap = wanted.offset.saturating_sub(end) as usize;
        let (gap, rest) = take(&mut waste)
            .split_at_mut_checked(gap)
            .unwrap_or_default();
        waste = rest;
        if !gap.is_empty() {
            slices.push(IoSliceMut::new(gap));
        }
        end = wanted.end();
        slices.push(IoSliceMut::new(wanted.into));
    }
    read_vectored(file, &mut slices, start)
}

fn read_vectored(
    file: &File,
    mut slices: &mut [IoSliceMut<'_>],
    mut offset: u64,
) -> io::Result<()> {
    let invalid = |_| io::Error::from(io::ErrorKind::InvalidInput);
    while slices.iter().any(|slice| !slice.is_empty()) {
        match preadv(file, slices, i64::try_from(offset).map_err(invalid)?) {
            Err(Errno::EINTR) => {}
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                let count = count?;
                offset += count as u64;
                IoSliceMut::advance_slices(&mut slices, count);
            }
        }
    }
    Ok(())
}
