//! A source file: opened once, stamped, read only through calls that fail when it changed.

mod reads;

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use nix::fcntl::{OFlag, PosixFadviseAdvice, posix_fadvise};

use super::descriptors::pool;
use super::direct_io::{self, DirectBuffer};
use super::open::open_regular;
use super::page_cache::PageCache;
use super::version::{Baseline, Stamp};
use crate::error::{Error, Result};

pub use reads::{Rows, Stretch, source_reads};

/// One regular file of the source.
#[derive(Debug)]
pub struct SourceFile {
    id: u64,
    path: PathBuf,
    stamp: Stamp,
    baseline: Baseline,
    page_cache: PageCache,
    /// Whether it can be read past the page cache.
    is_direct: OnceLock<bool>,
}

/// Descriptors that a file may have, and the number of the one past the page cache.
const KINDS: u64 = 2;
const DIRECT: u64 = 1;

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
            page_cache: PageCache::default(),
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

    /// Before a range is read: notes what others have in the page cache by now, and that it stays there where nobody else keeps
    /// it. Best effort.
    pub fn note_cached(&self, range: Range<u64>, is_kept: bool) {
        let Ok(file) = self.handle() else {
            return;
        };
        if !is_kept {
            self.page_cache.share(self.size(), range.clone());
        }
        self.page_cache.ask(&file, self.size(), range);
    }

    /// Has the kernel start to read a range that is about to be asked for in small pieces. Best effort.
    pub fn read_ahead(&self, range: Range<u64>) {
        if let Ok(file) = self.handle() {
            self.page_cache.ask(&file, self.size(), range.clone());
            advise(&file, range, PosixFadviseAdvice::POSIX_FADV_WILLNEED);
        }
    }

    /// After `range` was read: has the kernel read a slow file ahead of a sequential reader. A fast one it reads ahead better
    /// by itself. Best effort.
    pub fn read_ahead_of(&self, range: &Range<u64>) {
        if let Some(next) = self.page_cache.ahead(range.start, range.end) {
            self.read_ahead(next);
        }
    }

    /// After `bytes` out of a range were handed on, which the kernel keeps under the mount's own name: gives back the page
    /// cache of what is thereby complete. Best effort.
    pub fn give_back(&self, range: Range<u64>, bytes: u64) {
        let Ok(file) = self.handle() else {
            return;
        };
        for window in self.page_cache.count(&file, self.size(), range, bytes) {
            advise(&file, window, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
        }
    }

    /// A descriptor of the file, checked to be the one that was opened first.
    pub fn handle(&self) -> Result<Arc<File>> {
        self.opened(self.id, OFlag::empty())
    }

    /// One past the page cache, if a range of it is to be read in that way.
    fn direct_handle(&self, range: &Range<u64>) -> Option<Arc<File>> {
        let length = range.end.checked_sub(range.start)?;
        if length > DirectBuffer::MOST || !self.is_read_past_cache(range.clone()) {
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
        let is_possible = || direct_io::is_possible(&file);
        *self.is_direct.get_or_init(is_possible)
            && !self.page_cache.is_left_to_kernel()
            && !self.page_cache.is_shared(&file, self.size(), range)
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

impl Drop for SourceFile {
    fn drop(&mut self) {
        for kind in 0..KINDS {
            pool().remove(self.id + kind);
        }
    }
}
