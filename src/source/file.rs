//! A source file: opened once, and read only by calls that fail when its version has changed.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use nix::fcntl::{OFlag, PosixFadviseAdvice, posix_fadvise};

use super::budget::{Budget, Charge};
use super::direct_io;
use super::mechanism::Mechanism;
use super::open::open_regular;
use super::page_cache::{Caching, PageCache, is_cached};
use super::version::{Baseline, Stamp};
#[cfg(feature = "remote")]
use super::{
    place,
    remote::{self, Address, Object, Opened, RemoteFile},
};

#[cfg(feature = "remote")]
pub(super) use super::remote::Begun;

/// Requests for bytes of an object, of which there are none.
#[cfg(not(feature = "remote"))]
pub(super) struct Begun;
use crate::error::{Error, Result};

/// One regular file of the source.
#[derive(Debug)]
pub struct SourceFile {
    path: PathBuf,
    stamp: Stamp,
    baseline: Baseline,
    page_cache: PageCache,
    /// Whether the filesystem supports direct I/O.
    is_direct: OnceLock<bool>,
    budget: Budget,
    /// Memory of what is known from its metadata.
    charges: Mutex<Vec<Charge>>,
    /// The object whose bytes these are, where they do not lie in a file of this machine.
    #[cfg(feature = "remote")]
    remote: Option<RemoteFile>,
}

impl SourceFile {
    /// Opens a regular file by a path without links. FIFOs, devices, sockets and directories are refused without being opened for reading.
    pub fn open(path: &Path) -> Result<Arc<Self>> {
        Self::open_within(path, &Budget::unlimited())
    }

    /// As [`SourceFile::open`]; its metadata and its descriptors are charged to `budget`.
    pub fn open_within(path: &Path, budget: &Budget) -> Result<Arc<Self>> {
        #[cfg(feature = "remote")]
        if let Some(address) = Address::parse(path)? {
            return match remote::open(&address)? {
                Opened::Cached(file) => Self::open_within(&file, budget),
                Opened::Object(object) => Ok(Self::of_object(object, budget)),
            };
        }
        let file = open_regular(path, OFlag::empty())?;
        let stamp = Stamp::of(&file).map_err(|error| Error::io(path, error))?;
        let this = Arc::new(Self::new(path, stamp, budget));
        budget.descriptors().put((this.id(), false), Arc::new(file));
        Ok(this)
    }

    #[cfg(feature = "remote")]
    fn of_object(object: Object, budget: &Budget) -> Arc<Self> {
        let found = place::attributes_of(&object);
        let mut this = Self::new(object.path(), Stamp::from(found), budget);
        this.remote = Some(RemoteFile::new(object));
        Arc::new(this)
    }

    fn new(path: &Path, stamp: Stamp, budget: &Budget) -> Self {
        Self {
            path: path.to_owned(),
            stamp,
            baseline: Baseline::new(stamp),
            page_cache: PageCache::new(stamp.size),
            is_direct: OnceLock::new(),
            budget: budget.clone(),
            charges: Mutex::default(),
            #[cfg(feature = "remote")]
            remote: None,
        }
    }

    /// Whether the bytes lie in an object of a store, so that no descriptor stands for them.
    pub fn is_remote(&self) -> bool {
        #[cfg(feature = "remote")]
        return self.remote.is_some();
        #[cfg(not(feature = "remote"))]
        false
    }

    /// Begins the requests for ranges of the file, which are sorted, where its bytes lie in an object.
    ///
    /// # Errors
    /// When the object is shorter, or known to be another one.
    pub(super) fn begin(&self, ranges: &[Range<u64>]) -> Result<Option<Begun>> {
        #[cfg(feature = "remote")]
        if let Some(remote) = &self.remote {
            return remote.begin(ranges).map(Some);
        }
        let _ = ranges;
        Ok(None)
    }

    /// Fills memory, each at its offset, with the bytes of requests that were begun.
    pub(super) fn finish(&self, begun: &Begun, into: &mut [(u64, &mut [u8])]) -> Result<()> {
        #[cfg(feature = "remote")]
        if let Some(remote) = &self.remote {
            let length = |(_, memory): &(u64, &mut [u8])| memory.len() as u64;
            let total = into.iter().map(length).sum();
            return self.timed(total, || remote.finish(begun, into));
        }
        let _ = (begun, into);
        Ok(())
    }

    /// Returns a number that no other file has as long as this one is open.
    pub fn id(&self) -> usize {
        ptr::from_ref(self).addr()
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
    pub(super) fn record_resident(&self, range: Range<u64>, caching: Caching) {
        if self.is_remote() {
            return;
        }
        if caching == Caching::Bypass {
            self.page_cache.keep(range.clone());
        }
        self.page_cache.record_resident(range, &self.probe());
    }

    /// Starts readahead of a range that will be read in small pieces. Best effort.
    pub fn read_ahead(&self, range: Range<u64>) {
        #[cfg(feature = "remote")]
        if let Some(remote) = &self.remote {
            return remote.foresee(range);
        }
        if Mechanism::RowReadahead.is_on() {
            self.will_need(range);
        }
    }

    fn will_need(&self, range: Range<u64>) {
        self.page_cache
            .record_resident(range.clone(), &self.probe());
        self.advise(range, PosixFadviseAdvice::POSIX_FADV_WILLNEED);
    }

    /// Starts readahead behind `range`, which was just read, where the file is slow and its reader sequential. Fast files are
    /// left to the kernel's own readahead. Best effort.
    pub(super) fn read_ahead_after(&self, range: &Range<u64>) {
        if self.is_remote() {
            return;
        }
        if let Some(next) = self.page_cache.readahead(range) {
            self.will_need(next);
        }
    }

    /// Releases from the page cache what `bytes` delivered out of a range complete: the kernel keeps the reply under the
    /// mount's own name. Best effort.
    pub(super) fn release(&self, range: Range<u64>, bytes: u64) {
        if self.is_remote() || !Mechanism::Release.is_on() {
            return;
        }
        let probe = self.probe();
        for window in self.page_cache.record_delivered(range, bytes, &probe) {
            self.advise(window, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
        }
    }

    fn probe(&self) -> impl Fn(&Range<u64>) -> bool {
        |range| self.handle().map_or(true, |file| is_cached(&file, range))
    }

    fn advise(&self, range: Range<u64>, advice: PosixFadviseAdvice) {
        let numbers = i64::try_from(range.start)
            .ok()
            .zip(i64::try_from(range.end).ok());
        if let (Some((start, end)), Ok(file)) = (numbers, self.handle()) {
            posix_fadvise(file, start, end - start, advice).ok();
        }
    }

    /// Returns whether the file can be read by direct I/O: the filesystem supports it, and the file is not slow.
    pub fn supports_direct_io(&self) -> bool {
        if self.is_remote() {
            return false;
        }
        let is_supported = || {
            self.handle()
                .is_ok_and(|file| direct_io::is_supported(&file))
        };
        Mechanism::DirectIo.is_on()
            && !self.page_cache.is_buffered_only()
            && *self.is_direct.get_or_init(is_supported)
    }

    /// Returns whether some of a range was in the page cache when it was first read.
    pub(super) fn is_resident(&self, range: Range<u64>) -> bool {
        self.page_cache.is_resident(range, &self.probe())
    }

    /// # Errors
    /// When the file is known to be another one than was opened.
    pub fn check_unchanged(&self) -> Result<()> {
        #[cfg(feature = "remote")]
        if let Some(remote) = &self.remote {
            return remote.check();
        }
        self.checked_handle().map(drop)
    }

    /// Returns a descriptor of the file that was opened first. An object has none.
    pub fn handle(&self) -> Result<Arc<File>> {
        self.opened(false)
    }

    fn opened(&self, is_direct: bool) -> Result<Arc<File>> {
        if self.is_remote() {
            let reason = "an object of a store has no descriptor";
            let error = io::Error::new(io::ErrorKind::Unsupported, reason);
            return Err(Error::io(&self.path, error));
        }
        let (descriptors, key) = (self.budget.descriptors(), (self.id(), is_direct));
        if let Some(file) = descriptors.get(key) {
            return Ok(file);
        }
        let flags = match is_direct {
            true => OFlag::O_DIRECT,
            false => OFlag::empty(),
        };
        let file = Arc::new(open_regular(&self.path, flags)?);
        self.check(&file)?;
        descriptors.put(key, file.clone());
        Ok(file)
    }

    /// Returns a descriptor of the file, if its version is still the one that was opened.
    pub fn checked_handle(&self) -> Result<Arc<File>> {
        let file = self.handle()?;
        self.check(&file)?;
        Ok(file)
    }

    /// Fills `buffer` from `offset`, or fails: a short file and a changed file are errors.
    pub fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        #[cfg(feature = "remote")]
        if let Some(remote) = &self.remote {
            return remote.read_metadata(buffer, offset);
        }
        let length = buffer.len() as u64;
        self.read(length, |file| file.read_exact_at(buffer, offset))
    }

    /// Runs a read of so many bytes, and fails where the file has changed since it was opened.
    pub(super) fn read<T>(
        &self,
        bytes: u64,
        read: impl FnOnce(&File) -> io::Result<T>,
    ) -> Result<T> {
        let file = self.handle()?;
        let value = self.timed(bytes, || read(&file));
        let value = value.map_err(|error| self.failed(error))?;
        self.check(&file)?;
        Ok(value)
    }

    /// Runs a read by direct I/O. Returns `None` where it fails: buffered reads, which follow, report the error.
    pub(super) fn read_directly<T>(
        &self,
        bytes: u64,
        read: impl FnOnce(&File) -> io::Result<T>,
    ) -> Result<Option<T>> {
        let Ok(file) = self.opened(true) else {
            return Ok(None);
        };
        let Ok(value) = self.timed(bytes, || read(&file)) else {
            self.page_cache.disable_direct_io();
            return Ok(None);
        };
        self.check(&file)?;
        Ok(Some(value))
    }

    fn timed<T>(&self, bytes: u64, read: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let value = read();
        if Mechanism::Pace.is_on() {
            self.page_cache.record_pace(bytes, start.elapsed());
        }
        value
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

impl Drop for SourceFile {
    fn drop(&mut self) {
        self.budget.descriptors().remove(self.id());
    }
}
