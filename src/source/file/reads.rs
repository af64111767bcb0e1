//! How a source file is read: whole ranges past the page cache where that is worth it, else by `preadv`; timed, and checked
//! afterwards to be the file that was opened first.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::uio::preadv;

use super::super::direct_io::DirectBuffer;
use super::SourceFile;
use crate::error::Result;

/// An offset in a file, and what the bytes from there on fill.
pub type Stretch<'a> = (u64, Vec<IoSliceMut<'a>>);

/// Equally long rows of a file, `step` bytes apart.
#[derive(Debug, Clone, Copy)]
pub struct Rows {
    pub offset: u64,
    pub length: usize,
    pub step: u64,
}

impl SourceFile {
    /// Fills `buffer` from `offset`, or fails: a short file and a changed file are errors.
    pub fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let length = buffer.len() as u64;
        self.checked(length, |file| file.read_exact_at(buffer, offset))
    }

    /// Fills the slices of each stretch, in order, with the contiguous bytes from its offset on: past the page cache where it
    /// has at least `long` of them and that is possible, else by one `preadv` for each 1024 slices.
    pub fn read_scattered(&self, stretches: &mut [Stretch<'_>], long: u64) -> Result<()> {
        let mut others = Vec::with_capacity(stretches.len());
        for (offset, slices) in stretches {
            let (mut offset, mut slices) = (*offset, &mut slices[..]);
            if length(slices) >= long {
                self.land(&mut offset, &mut slices)?;
            }
            if !slices.is_empty() {
                others.push((offset, slices));
            }
        }
        let left = others.iter().map(|(.., slices)| length(slices)).sum();
        if left == 0 {
            return Ok(());
        }
        self.checked(left, |file| {
            let mut others = others.into_iter();
            others.try_for_each(|(offset, slices)| scatter(file, slices, offset))
        })
    }

    /// Fills as many slices as can be read past the page cache, and leaves the others with the offset of their bytes.
    fn land(&self, offset: &mut u64, slices: &mut &mut [IoSliceMut<'_>]) -> Result<()> {
        let end = *offset + length(slices);
        while *offset < end {
            let Some(landed) =
                self.read_past_cache(*offset..end.min(*offset + DirectBuffer::MOST))?
            else {
                break;
            };
            landed.scatter(slices);
            *offset += landed.len() as u64;
        }
        Ok(())
    }

    /// The bytes of a range, read past the page cache, where that is possible and worth it, and nobody else has them there.
    pub fn read_past_cache(&self, range: Range<u64>) -> Result<Option<DirectBuffer>> {
        let Some(file) = self.direct_handle(&range) else {
            return Ok(None);
        };
        let Some(mut landed) = DirectBuffer::take() else {
            return Ok(None);
        };
        let length = range.end - range.start;
        if self.timed(length, || landed.read(&file, range)).is_err() {
            // What is wrong tells who reads it in the usual way.
            self.page_cache.leave_to_kernel();
            return Ok(None);
        }
        self.check(&file)?;
        Ok(Some(landed))
    }

    /// Fills the front of each `pitch` bytes of `buffer` with the next row.
    pub fn read_rows(&self, rows: Rows, buffer: &mut [u8], pitch: usize) -> Result<()> {
        self.checked(buffer.len() as u64, |file| {
            if rows.length == pitch && rows.step == pitch as u64 {
                return file.read_exact_at(buffer, rows.offset);
            }
            let places = buffer.chunks_mut(pitch).zip(0..);
            places
                .filter_map(|(place, row)| Some((place.get_mut(..rows.length)?, row)))
                .try_for_each(|(place, row)| {
                    file.read_exact_at(place, rows.offset + row * rows.step)
                })
        })
    }

    /// What `read` read, so many bytes, if the file is afterwards still the one that was opened first.
    fn checked<T>(&self, bytes: u64, read: impl FnOnce(&File) -> io::Result<T>) -> Result<T> {
        let file = self.handle()?;
        let value = self.timed(bytes, || read(&file));
        let value = value.map_err(|error| self.failed(error))?;
        self.check(&file)?;
        Ok(value)
    }

    fn timed<T>(&self, bytes: u64, read: impl FnOnce() -> T) -> T {
        READS.fetch_add(1, Ordering::Relaxed);
        let start = Instant::now();
        let value = read();
        self.page_cache.note_pace(bytes, start.elapsed());
        value
    }
}

/// Reads of all source files, for the statistics.
static READS: AtomicU64 = AtomicU64::new(0);

/// How often this process has read source files, in whatever sizes.
pub fn source_reads() -> u64 {
    READS.load(Ordering::Relaxed)
}

/// Most slices that one `preadv` takes (Linux: IOV_MAX).
const SLICES_AT_ONCE: usize = 1024;

fn scatter(file: &File, slices: &mut [IoSliceMut<'_>], mut offset: u64) -> io::Result<()> {
    for chunk in slices.chunks_mut(SLICES_AT_ONCE) {
        let mut rest: &mut [IoSliceMut<'_>] = chunk;
        while !rest.is_empty() {
            let count = match preadv(file, rest, at(offset)?) {
                Err(Errno::EINTR) => continue,
                count => count?,
            };
            if count == 0 && rest.iter().any(|slice| !slice.is_empty()) {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            offset += count as u64;
            IoSliceMut::advance_slices(&mut rest, count);
        }
    }
    Ok(())
}

fn length(slices: &[IoSliceMut<'_>]) -> u64 {
    slices.iter().map(|slice| slice.len() as u64).sum()
}

fn at(offset: u64) -> io::Result<i64> {
    i64::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput.into())
}
