//! Reads of a source file: direct I/O for long ranges, else `preadv`. Each read is timed, and the version is checked
//! afterwards.

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

/// An offset in a file, and the slices that the bytes from there on fill.
pub type Stretch<'a> = (u64, Vec<IoSliceMut<'a>>);

/// Rows of equal length in a file, `step` bytes apart.
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

    /// Fills the slices of each stretch, in order, with the contiguous bytes from its offset on: by direct I/O where it has at
    /// least `long` bytes and the file allows it, else by one `preadv` for each 1024 slices.
    pub fn read_scattered(&self, stretches: &mut [Stretch<'_>], long: u64) -> Result<()> {
        let mut others = Vec::with_capacity(stretches.len());
        for (offset, slices) in stretches {
            let (mut offset, mut slices) = (*offset, &mut slices[..]);
            if length(slices) >= long {
                self.fill_directly(&mut offset, &mut slices)?;
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

    /// Fills as many slices as direct I/O allows, and leaves the others with the offset of their bytes.
    fn fill_directly(&self, offset: &mut u64, slices: &mut &mut [IoSliceMut<'_>]) -> Result<()> {
        let end = *offset + length(slices);
        while *offset < end {
            let Some(buffer) =
                self.read_direct(*offset..end.min(*offset + DirectBuffer::MAX_LENGTH))?
            else {
                break;
            };
            buffer.scatter(slices);
            *offset += buffer.len() as u64;
        }
        Ok(())
    }

    /// Reads a range by direct I/O. Returns `None` where the file or the range is left to buffered reads, or no buffer is free.
    pub fn read_direct(&self, range: Range<u64>) -> Result<Option<DirectBuffer>> {
        let Some(file) = self.direct_handle(&range) else {
            return Ok(None);
        };
        let Some(mut buffer) = DirectBuffer::take() else {
            return Ok(None);
        };
        let length = range.end - range.start;
        if self.timed(length, || buffer.read(&file, range)).is_err() {
            // Falls back to buffered I/O, which reports the error.
            self.page_cache.disable_direct_io();
            return Ok(None);
        }
        self.check(&file)?;
        Ok(Some(buffer))
    }

    /// Fills the front of each `pitch` bytes of `buffer` with the next row.
    pub fn read_rows(&self, rows: Rows, buffer: &mut [u8], pitch: usize) -> Result<()> {
        self.checked(buffer.len() as u64, |file| {
            if rows.length == pitch && rows.step == pitch as u64 {
                return file.read_exact_at(buffer, rows.offset);
            }
            let chunks = buffer.chunks_mut(pitch).zip(0..);
            chunks
                .filter_map(|(chunk, row)| Some((chunk.get_mut(..rows.length)?, row)))
                .try_for_each(|(chunk, row)| {
                    file.read_exact_at(chunk, rows.offset + row * rows.step)
                })
        })
    }

    /// Runs a read of so many bytes, and fails where the file has changed since it was opened.
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
        self.page_cache.record_pace(bytes, start.elapsed());
        value
    }
}

/// Reads of all source files of the process, for the statistics.
static READS: AtomicU64 = AtomicU64::new(0);

/// Returns how many reads of source files this process has issued, of any size.
pub fn source_reads() -> u64 {
    READS.load(Ordering::Relaxed)
}

/// Slices that one `preadv` takes at most (`IOV_MAX` on Linux).
const MAX_SLICES: usize = 1024;

fn scatter(file: &File, slices: &mut [IoSliceMut<'_>], mut offset: u64) -> io::Result<()> {
    for chunk in slices.chunks_mut(MAX_SLICES) {
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
