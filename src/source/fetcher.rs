//! One door for the bytes of source files. Readers say which ranges they want; here alone it is decided how those come into
//! memory (see [`super::route`]).
//!
//! A reply is read in three steps. `gather` (ranges into the caller's memory), `fetch` (one range) or `lend` (a long range in
//! pieces) read bytes and record what they touched; the reply goes out; `Touched::settle` then releases and reads ahead.

use std::borrow::Borrow;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::bytes::Bytes;
use super::direct_io::{DirectBuffer, DirectBuffers};
use super::file::{Begun, SourceFile};
use super::mechanism::Mechanism;
use super::memory::{Memory, Spare};
use super::route::{Facts, Route, route};
use super::touched::Touched;
use super::wanted::{MAX_RANGES, Wanted, bytes, gaps, read_close, span};
use super::windows::{self, Windows};
use crate::error::{Error, Result};

/// Piece of a long range that is lent through the page cache: it stays in the processor's cache while it is worked on.
const PIECE: u64 = 256 << 10;

/// Reads the source files of one mount, and owns the memory for it.
#[derive(Debug)]
pub struct Fetcher {
    buffers: Arc<DirectBuffers>,
    spare: Arc<Spare>,
    windows: Windows,
    reads: AtomicU64,
}

impl Default for Fetcher {
    fn default() -> Self {
        Self {
            buffers: Arc::default(),
            spare: Arc::default(),
            windows: Windows::new(),
            reads: AtomicU64::new(0),
        }
    }
}

/// The reply that ranges are for, as far as it decides their route.
#[derive(Clone, Copy)]
struct Reply {
    bytes: u64,
    files: usize,
    stretches: usize,
}

/// Ranges of one file, sorted and near each other.
type Region<'r, 'f, 'b> = &'r mut [Wanted<'f, 'b>];

impl Fetcher {
    /// Fills every range. Changes the order of `wanted`.
    ///
    /// # Errors
    /// When a file cannot be read, is too short, or has changed since it was opened.
    pub fn gather(&self, wanted: &mut [Wanted<'_, '_>], touched: &mut Touched) -> Result<()> {
        wanted.sort_unstable_by_key(Wanted::position);
        let mut reply = Reply {
            bytes: bytes(wanted),
            files: 1,
            stretches: 1,
        };
        let mut others = Vec::new();
        for region in wanted.chunk_by_mut(Wanted::is_near) {
            touched.add_region(region);
            let is_windowed =
                Mechanism::Windows.is_on() && route_of(region, reply) == Route::Windowed;
            if !(is_windowed && self.fill_from_windows(region)?) {
                others.push(region);
            }
        }
        reply.files = others.chunk_by(|a, b| is_same_file(a, b)).count();
        // Requests to stores are all under way before the first is waited for.
        let begun = others.chunk_by(|a, b| is_same_file(a, b)).filter_map(begin);
        let mut begun = begun.collect::<Result<Vec<_>>>()?.into_iter();
        for of_file in others.chunk_by_mut(|a, b| is_same_file(a, b)) {
            let stretches = of_file
                .iter()
                .map(|region| region.chunk_by(Wanted::is_close_to).count());
            reply.stretches = stretches.sum();
            match begun.next() {
                Some((file, Some(begun))) => finish(file, &begun, of_file)?,
                _ => self.fill_regions(of_file, reply)?,
            }
        }
        Ok(())
    }

    /// Fills regions of one file, of which none is windowed.
    fn fill_regions(&self, regions: &mut [Region<'_, '_, '_>], reply: Reply) -> Result<()> {
        let mut buffered = Vec::new();
        for region in regions {
            for stretch in region.chunk_by_mut(Wanted::is_close_to) {
                let is_direct = route_of(stretch, reply) != Route::Buffered;
                if !(is_direct && self.fill_directly(stretch)?) {
                    buffered.push(stretch);
                }
            }
        }
        self.fill_buffered(&mut buffered)
    }

    /// Returns whether the windows around a region could be read.
    fn fill_from_windows(&self, region: &mut [Wanted<'_, '_>]) -> Result<bool> {
        let Some(file) = region.first().map(|first| first.file) else {
            return Ok(true);
        };
        let span = span(region);
        let read = |range| self.read_directly(file, range);
        self.windows.read_free(file, &span, &read)?;
        let get = |window| self.windows.get(file, window, &read);
        fill(region, windows::ranges(file, &span), get)
    }

    /// Returns whether a stretch could be read by direct I/O.
    fn fill_directly(&self, stretch: &mut [Wanted<'_, '_>]) -> Result<bool> {
        let Some(file) = stretch.first().map(|first| first.file) else {
            return Ok(true);
        };
        let pieces = pieces(span(stretch), DirectBuffer::MAX_LENGTH);
        fill(stretch, pieces, |piece| self.read_directly(file, piece))
    }

    fn fill_buffered(&self, stretches: &mut [Region<'_, '_, '_>]) -> Result<()> {
        let first = stretches.iter().find_map(|stretch| stretch.first());
        let Some(file) = first.map(|first| first.file) else {
            return Ok(());
        };
        self.reads.fetch_add(1, Ordering::Relaxed);
        let all = stretches.iter().map(|stretch| bytes(stretch)).sum();
        file.read(all, |opened| {
            let parts = stretches
                .iter_mut()
                .flat_map(|stretch| stretch.chunks_mut(MAX_RANGES));
            for part in parts {
                let mut waste = self.spare.take(gaps(part) as usize)?;
                read_close(opened, part, &mut waste)?;
            }
            Ok(())
        })
    }

    /// Returns the bytes of one range.
    ///
    /// # Errors
    /// As those of [`Fetcher::gather`].
    pub fn fetch(
        &self,
        file: &Arc<SourceFile>,
        range: Range<u64>,
        touched: &mut Touched,
    ) -> Result<Bytes> {
        let length = range.end.saturating_sub(range.start);
        touched.add(file, range.clone(), length);
        let is_short = length <= DirectBuffer::MAX_LENGTH;
        if is_short
            && can_bypass(file, range.clone())
            && let Some(buffer) = self.read_directly(file, range.clone())?
        {
            return Ok(buffer.into());
        }
        let mut memory = self.memory(length as usize)?;
        let (offset, into) = (range.start, &mut *memory);
        let reply = Reply {
            bytes: length,
            files: 1,
            stretches: 1,
        };
        let regions: &mut [Region<'_, '_, '_>] = &mut [&mut [Wanted { file, offset, into }]];
        match file.begin(&[range])? {
            Some(begun) => finish(file, &begun, regions)?,
            None => self.fill_regions(regions, reply)?,
        }
        Ok(memory.into())
    }

    /// Calls `each` with the bytes of a range of any length, a piece at a time, and how far into the range each begins. All
    /// pieces but the last are multiples of `unit`.
    ///
    /// # Errors
    /// As those of [`Fetcher::gather`], and those of `each`.
    pub fn lend(
        &self,
        file: &Arc<SourceFile>,
        range: Range<u64>,
        unit: u64,
        touched: &mut Touched,
        each: &mut dyn FnMut(u64, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let most = match can_bypass(file, range.clone()) {
            true => DirectBuffer::MAX_LENGTH,
            false => PIECE,
        };
        let length = (most / unit.max(1)).max(1) * unit.max(1);
        if file.is_remote() && range.end.saturating_sub(range.start) > length {
            // One round trip for all pieces.
            file.read_ahead(range.clone());
        }
        for piece in pieces(range.clone(), length) {
            let start = piece.start - range.start;
            each(start, &self.fetch(file, piece, touched)?)?;
        }
        Ok(())
    }

    /// Returns memory of any value, in which bytes are put together.
    ///
    /// # Errors
    /// When there is no such memory.
    pub fn memory(&self, length: usize) -> Result<Memory> {
        let failed = |error: io::Error| Error::io("memory".as_ref(), error);
        self.spare.take(length).map_err(failed)
    }

    /// Returns how many reads this mount issued, of any size.
    pub fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    /// Reads a range of at most [`DirectBuffer::MAX_LENGTH`] by direct I/O, unless the file or the memory does not allow it.
    fn read_directly(&self, file: &SourceFile, range: Range<u64>) -> Result<Option<DirectBuffer>> {
        let Some(mut buffer) = self.buffers.take() else {
            return Ok(None);
        };
        self.reads.fetch_add(1, Ordering::Relaxed);
        let length = range.end - range.start;
        let read = file.read_directly(length, |opened| buffer.read(opened, range))?;
        Ok(read.map(|()| buffer))
    }
}

/// Begins the requests for regions of one file, if it is an object.
fn begin<'f>(
    regions: &[Region<'_, 'f, '_>],
) -> Option<Result<(&'f Arc<SourceFile>, Option<Begun>)>> {
    let file = regions.first()?.first()?.file;
    let ranges = regions.iter().flat_map(|region| region.iter());
    let ranges = ranges.map(|wanted| wanted.offset..wanted.offset + wanted.bytes());
    let begun = file.begin(&ranges.collect::<Vec<_>>());
    Some(begun.map(|begun| (file, begun)))
}

fn finish(file: &SourceFile, begun: &Begun, regions: &mut [Region<'_, '_, '_>]) -> Result<()> {
    let wanted = regions.iter_mut().flat_map(|region| region.iter_mut());
    let mut into: Vec<_> = wanted
        .map(|wanted| (wanted.offset, &mut *wanted.into))
        .collect();
    file.finish(begun, &mut into)
}

fn route_of(wanted: &[Wanted<'_, '_>], reply: Reply) -> Route {
    let span = span(wanted);
    let length = span.end - span.start;
    let first = wanted.first();
    route(&Facts {
        can_bypass: first.is_some_and(|first| can_bypass(first.file, span)),
        ranges: wanted.len() as u64,
        bytes: bytes(wanted),
        length,
        reply: reply.bytes,
        files: reply.files,
        stretches: reply.stretches,
    })
}

fn is_same_file(a: &[Wanted<'_, '_>], b: &[Wanted<'_, '_>]) -> bool {
    let pair = a.first().zip(b.first());
    pair.is_some_and(|(a, b)| a.is_of_file_of(b))
}

/// Returns whether a range can be read by direct I/O and has no part in the page cache.
fn can_bypass(file: &SourceFile, range: Range<u64>) -> bool {
    file.supports_direct_io() && !file.is_resident(range)
}

/// Fills ranges from pieces of their file. Returns whether all of them were to be had.
fn fill<T: Borrow<DirectBuffer>>(
    wanted: &mut [Wanted<'_, '_>],
    pieces: impl Iterator<Item = Range<u64>>,
    get: impl Fn(Range<u64>) -> Result<Option<T>>,
) -> Result<bool> {
    for piece in pieces {
        let start = piece.start;
        let Some(bytes) = get(piece)? else {
            return Ok(false);
        };
        for wanted in &mut *wanted {
            wanted.take_from(start, bytes.borrow());
        }
    }
    Ok(true)
}

/// Cuts a range into pieces of at most `length`.
fn pieces(range: Range<u64>, length: u64) -> impl Iterator<Item = Range<u64>> {
    let (start, end) = (range.start, range.end);
    let count = end.saturating_sub(start).div_ceil(length.max(1));
    (0..count).map(move |number| {
        let start = start + number * length;
        start..end.min(start + length)
    })
}
