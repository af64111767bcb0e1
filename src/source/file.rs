//! A source file: opened once, and read only by calls that fail when its version has changed.

mod reads;

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use nix::fcntl::{OFlag, PosixFadviseAdvice, posix_fadvise};

use super::budget::{Budget, Charge};
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
    /// Whether the filesystem supports direct I/O.
    is_direct: OnceLock<bool>,
    budget: Budget,
    /// Memory of what is known from its metadata.
    charges: Mutex<Vec<Charge>>,
}

/// Descriptors of a file in the pool, and the offset of the one for direct I/O.
const KINDS: u64 = 2;
const DIRECT: u64 = 1;

impl SourceFile {
    /// Opens a regular file by a path without links. FIFOs, devices, sockets and directories are refused without being opened for reading.
    pub fn open(path: &Path) -> Result<Arc<Self>> {
        Self::open_within(path, &Budget::unlimited())
    }

    /// As [`SourceFile::open`]; its metadata is charged to `budget`.
    pub fn open_within(path: &Path, budget: &Budget) -> Result<Arc<Self>> {
        let file = open_regular(path, OFlag::empty())?;
        let stamp = Stamp::of(&file).map_err(|error| Error::io(path, error))?;
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let this = Arc::new(Self {
            id: NEXT.fetch_add(KINDS, Ordering::Relaxed),
            path: path.to_owned(),
            stamp,
            baseline: Baseline::new(stamp),
            page_cache: PageCache::default(),
            is_direct: OnceLock::new(),
            budget: budget.clone(),
            charges: Mutex::default(),
        });
        pool().put(this.id, Arc::new(file));
        Ok(this)
    }

    /// Returns a number that no other file of this process has.
    pub fn id(&self) -> u64 {
        self.id
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Charges memory for the file's metadata, before it is asked for.
    pub fn charge(&self, bytes: u64) -> Result<Charge> {
        self.budget.charge(&self.path, bytes)
    }

    /// Keeps a charge for as long as the file.
    pub fn keep(&self, charge: Charge) {
        let mut charges = self.charges.lock().unwrap_or_else(PoisonError::into_inner);
        charges.push(charge);
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

    /// Number of the inode.
    pub fn inode(&self) -> u64 {
        self.stamp.inode
    }

    /// Change time when the file was opened: seconds and nanoseconds since the epoch.
    pub fn changed(&self) -> (i64, i64) {
        self.stamp.changed
    }

    /// Whether two handles name one file on disk.
    pub fn same_file(&self, other: &Self) -> bool {
        self.stamp.is_of_file_of(&other.stamp)
    }

    /// Records, before a range is read, what is resident in the page cache, and keeps the range there unless the kernel keeps
    /// the reply itself. Best effort.
    pub fn record_resident(&self, range: Range<u64>, is_kept: bool) {
        let Ok(file) = self.handle() else {
            return;
        };
        if !is_kept {
            self.page_cache.keep(self.size(), range.clone());
        }
        self.page_cache.record_resident(&file, self.size(), range);
    }

    /// Starts readahead of a range that will be read in small pieces. Best effort.
    pub fn read_ahead(&self, range: Range<u64>) {
        if let Ok(file) = self.handle() {
            self.page_cache
                .record_resident(&file, self.size(), range.clone());
            advise(&file, range, PosixFadviseAdvice::POSIX_FADV_WILLNEED);
        }
    }

    /// Starts readahead behind `range`, which was just read, where the file is slow and its reader sequential. Fast files are
    /// left to the kernel's own readahead. Best effort.
    pub fn read_ahead_after(&self, range: &Range<u64>) {
        if let Some(next) = self.page_cache.readahead(range.start, range.end) {
            self.read_ahead(next);
        }
    }

    /// Releases from the page cache what `bytes` delivered out of a range complete: the kernel keeps the reply under the
    /// mount's own name. Best effort.
    pub fn release(&self, range: Range<u64>, bytes: u64) {
        let Ok(file) = self.handle() else {
            return;
        };
        for window in self
            .page_cache
            .record_delivered(&file, self.size(), range, bytes)
        {
            advise(&file, window, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
        }
    }

    /// Returns a descriptor of the file that was opened first.
    pub fn handle(&self) -> Result<Arc<File>> {
        self.opened(self.id, OFlag::empty())
    }

    /// Returns a descriptor for direct I/O, if the range is to be read so.
    fn direct_handle(&self, range: &Range<u64>) -> Option<Arc<File>> {
        let length = range.end.checked_sub(range.start)?;
        if length > DirectBuffer::MAX_LENGTH || !self.uses_direct_io(range.clone()) {
            return None;
        }
        self.opened(self.id + DIRECT, OFlag::O_DIRECT).ok()
    }

    /// Returns whether a range that is not too long is read by direct I/O: the filesystem supports it, the file is not slow,
    /// and the range is not in the page cache already.
    pub fn uses_direct_io(&self, range: Range<u64>) -> bool {
        let Ok(file) = self.handle() else {
            return false;
        };
        let is_supported = || direct_io::is_supported(&file);
        *self.is_direct.get_or_init(is_supported)
            && !self.page_cache.is_buffered_only()
            && !self.page_cache.is_resident(&file, self.size(), range)
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

    /// Returns a descriptor of the file, if its version is still the one that was opened.
    pub fn checked_handle(&self) -> Result<Arc<File>> {
        let file = self.handle()?;
        self.check(&file)?;
        Ok(file)
    }

    fn check(&self, file: &File) -> Result<()> {
        let look = || Stamp::of(file).map_err(|error| Error::io(&self.path, error));
        // The common case, unchanged, takes no lock.
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
