//! A source file: opened once, stamped, read only through calls that fail when it changed.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{OFlag, PosixFadviseAdvice, posix_fadvise};
use nix::sys::uio::preadv;

use super::descriptors::pool;
use super::opening::open_regular;
use super::past_cache::{self, Landed};
use super::residency::Residency;
use super::stamp::{Baseline, Stamp};
use crate::error::{Error, Result};

/// One regular file of the source.
#[derive(Debug)]
pub struct SourceFile {
    id: u64,
    path: PathBuf,
    stamp: Stamp,
    baseline: Baseline,
    residency: Residency,
    /// Whether it can be read past the page cache.
    is_direct: OnceLock<bool>,
}

/// Descriptors that a file may have, and the number of the one past the page cache.
const KINDS: u64 = 2;
const DIRECT: u64 = 1;

/// Shorter stretches of which several make a reply follow each other closely: the kernel reads them ahead.
const LONG: usize = 64 << 10;

/// Equally long rows of a file, `step` bytes apart.
#[derive(Debug, Clone, Copy)]
pub struct Rows {
    pub offset: u64,
    pub length: usize,
    pub step: u64,
}

impl SourceFile {
    /// Opens a regular file by a path without links. FIFOs, devices, sockets and directories are refused without being opened for reading.
    pub fn open(path: &Path) -> Result<Arc<Self>> {
        let file = open_regular(path, OFlag::empty())?;
        let metadata = file.metadata().map_err(|error| Error::io(path, error))?;
        let stamp = Stamp::of(&metadata);
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let this = Arc::new(Self {
            id: NEXT.fetch_add(KINDS, Ordering::Relaxed),
            path: path.to_owned(),
            stamp,
            baseline: Baseline::new(stamp),
            residency: Residency::default(),
            is_direct: OnceLock::new(),
        });
        pool().put(this.id, Arc::new(file));
        Ok(this)
    }

    /// A number that no other file of this process has.
    pub fn id(&self) -> u64 {
        self.id
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Size in bytes when the file was opened.
    pub fn size(&self) -> u64 {
        self.stamp.size
    }

    /// Permission bits when the file was opened.
    pub fn mode(&self) -> u32 {
        self.stamp.inode_state.1
    }

    /// Owner and group when the file was opened.
    pub fn owner(&self) -> (u32, u32) {
        (self.stamp.inode_state.2, self.stamp.inode_state.3)
    }

    /// Modification time when the file was opened: seconds and nanoseconds since the epoch.
    pub fn modified(&self) -> (i64, i64) {
        self.stamp.modified
    }

    /// Whether two handles name one file on disk.
    pub fn same_file(&self, other: &Self) -> bool {
        self.stamp.is_of_file_of(&other.stamp)
    }

    /// Fills `buffer` from `offset`, or fails: a short file and a changed file are errors.
    pub fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        self.checked(|file| file.read_exact_at(buffer, offset))
    }

    /// Fills the slices of each stretch, in order, with the contiguous bytes from its offset on: one `preadv` for each
    /// 1024 slices.
    pub fn read_scattered(&self, stretches: &mut [(u64, Vec<IoSliceMut<'_>>)]) -> Result<()> {
        let is_lone = stretches.len() == 1;
        let mut others = Vec::with_capacity(stretches.len());
        for (offset, slices) in stretches {
            let length: usize = slices.iter().map(|slice| slice.len()).sum();
            let landed = match is_lone || length >= LONG {
                true => self.read_past_cache(*offset..*offset + length as u64)?,
                false => None,
            };
            match landed {
                Some(landed) => landed.scatter(slices),
                None => others.push((*offset, slices)),
            }
        }
        if others.is_empty() {
            return Ok(());
        }
        self.checked(|file| {
            let mut others = others.into_iter();
            others.try_for_each(|(offset, slices)| scatter(file, slices, offset))
        })
    }

    /// The bytes of a range, read past the page cache, where that is possible and worth it, and nobody else has them there.
    pub fn read_past_cache(&self, range: Range<u64>) -> Result<Option<Landed>> {
        let Some(file) = self.direct_handle(&range) else {
            return Ok(None);
        };
        READS.fetch_add(1, Ordering::Relaxed);
        let Ok(landed) = Landed::read(&file, range) else {
            // What is wrong tells who reads it in the usual way.
            self.residency.leave_to_kernel();
            return Ok(None);
        };
        self.check(&file)?;
        Ok(landed)
    }

    /// Fills the front of each `pitch` bytes of `buffer` with the next row.
    pub fn read_rows(&self, rows: Rows, buffer: &mut [u8], pitch: usize) -> Result<()> {
        self.checked(|file| {
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

    /// What `read` read, if the file is afterwards still the one that was opened first.
    fn checked<T>(&self, read: impl FnOnce(&File) -> io::Result<T>) -> Result<T> {
        READS.fetch_add(1, Ordering::Relaxed);
        let file = self.handle()?;
        let value = read(&file).map_err(|error| self.failed(error))?;
        self.check(&file)?;
        Ok(value)
    }

    /// Before a range is read: notes what others have in the page cache by now, and that it stays there where nobody else keeps
    /// it. Best effort.
    pub fn note_cached(&self, range: Range<u64>, is_kept: bool) {
        let Ok(file) = self.handle() else {
            return;
        };
        if !is_kept {
            self.residency.share(self.size(), range.clone());
        }
        self.residency.ask(&file, self.size(), range);
    }

    /// Has the kernel start to read a range that is about to be asked for in small pieces. Best effort.
    pub fn read_ahead(&self, range: Range<u64>) {
        if let Ok(file) = self.handle() {
            self.residency.ask(&file, self.size(), range.clone());
            advise(&file, range, PosixFadviseAdvice::POSIX_FADV_WILLNEED);
        }
    }

    /// Notes how long the file took for a reply of so many bytes.
    pub fn note_pace(&self, bytes: u64, took: Duration) {
        self.residency.note_pace(bytes, took);
    }

    /// After `range` was read: has the kernel read a slow file ahead of a sequential reader. A fast one it reads ahead better
    /// by itself. Best effort.
    pub fn read_ahead_of(&self, range: &Range<u64>) {
        if let Some(next) = self.residency.ahead(range.start, range.end) {
            self.read_ahead(next);
        }
    }

    /// After `bytes` out of a range were handed on, which the kernel keeps under the mount's own name: gives back the page
    /// cache of what is thereby complete. Best effort.
    pub fn give_back(&self, range: Range<u64>, bytes: u64) {
        let Ok(file) = self.handle() else {
            return;
        };
        for window in self.residency.count(&file, self.size(), range, bytes) {
            advise(&file, window, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
        }
    }

    /// A descriptor of the file, checked to be the one that was opened first.
    pub fn handle(&self) -> Result<Arc<File>> {
        self.opened(self.id, OFlag::empty())
    }

    /// One past the page cache, if a range of it is to be read in that way.
    fn direct_handle(&self, range: &Range<u64>) -> Option<Arc<File>> {
        let suits = past_cache::suits(range.end.checked_sub(range.start)?);
        if !suits || !self.is_read_past_cache(range.clone()) {
            return None;
        }
        self.opened(self.id + DIRECT, OFlag::O_DIRECT).ok()
    }

    /// Whether a range that is not too long is read past the page cache: nobody else has it there, the file allows it and is
    /// not so slow that it must be read far ahead.
    pub fn is_read_past_cache(&self, range: Range<u64>) -> bool {
        let Ok(file) = self.handle() else {
            return false;
        };
        let is_possible = || past_cache::is_possible(&file);
        *self.is_direct.get_or_init(is_possible)
            && !self.residency.is_left_to_kernel()
            && !self.residency.is_shared(&file, self.size(), range)
    }

    fn opened(&self, id: u64, flags: OFlag) -> Result<Arc<File>> {
        if let Some(file) = pool().get(id) {
            return Ok(file);
        }
        let file = Arc::new(open_regular(&self.path, flags)?);
        self.check(&file)?;
        pool().put(id, file.clone());
        Ok(file)
    }

    /// A descriptor of the file, if its bytes are still those that it was opened with.
    pub fn checked_handle(&self) -> Result<Arc<File>> {
        let file = self.handle()?;
        self.check(&file)?;
        Ok(file)
    }

    fn check(&self, file: &File) -> Result<()> {
        let look = || match file.metadata() {
            Ok(metadata) => Ok(Stamp::of(&metadata)),
            Err(error) => Err(Error::io(&self.path, error)),
        };
        // Nearly always nothing has changed, and nobody waits for another's look.
        let now = look()?;
        if now == self.stamp || self.baseline.is(&now) {
            return Ok(());
        }
        match self.baseline.hold(look)? {
            None => Ok(()),
            Some(what) => Err(Error::Changed {
                file: self.path.clone(),
                what,
            }),
        }
    }

    fn failed(&self, error: io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Error::Changed {
                file: self.path.clone(),
                what: "shorter than before".to_owned(),
            },
            _ => Error::io(&self.path, error),
        }
    }
}

fn advise(file: &File, range: Range<u64>, advice: PosixFadviseAdvice) {
    let (offset, length) = (range.start as i64, (range.end - range.start) as i64);
    posix_fadvise(file, offset, length, advice).ok();
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

fn at(offset: u64) -> io::Result<i64> {
    i64::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput.into())
}

impl Drop for SourceFile {
    fn drop(&mut self) {
        for kind in 0..KINDS {
            pool().remove(self.id + kind);
        }
    }
}
