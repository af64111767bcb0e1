//! Windows of source files whose bytes go to several replies, such as the heads of a tensor in rotary order: read by direct
//! I/O, whole, once, and kept for the next few replies.

use std::hash::{Hash, Hasher};
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use lru::LruCache;

use super::direct_io::DirectBuffer;
use super::file::SourceFile;
use crate::error::Result;

/// Windows that a mount keeps: half of the direct buffers.
const KEPT: NonZeroUsize = NonZeroUsize::new(16).unwrap();

/// Bytes of a window: about as many as the rows of a reply are spread over.
const SIZE: u64 = DirectBuffer::MAX_LENGTH;

/// A window of a file, which no later file can be taken for.
#[derive(Debug)]
struct Key(Weak<SourceFile>, u64);

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.0.ptr_eq(&other.0) && self.1 == other.1
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.0.as_ptr().addr(), self.1).hash(state);
    }
}

/// Read by the first thread that needs it, for which the others wait.
#[derive(Debug, Default)]
struct Window(Mutex<Option<Arc<DirectBuffer>>>);

/// The windows of a mount that were used last.
#[derive(Debug)]
pub(super) struct Windows(Mutex<LruCache<Key, Arc<Window>>>);

/// Reads a range by direct I/O, unless the file or the memory does not allow it.
type Read<'a> = &'a dyn Fn(Range<u64>) -> Result<Option<DirectBuffer>>;

impl Windows {
    pub(super) fn new() -> Self {
        Self(Mutex::new(LruCache::new(KEPT)))
    }

    /// Reads those windows around a range that no thread is reading, instead of waiting for one.
    pub(super) fn read_free(
        &self,
        file: &Arc<SourceFile>,
        range: &Range<u64>,
        read: Read<'_>,
    ) -> Result<()> {
        for window in ranges(file, range) {
            if let Ok(mut bytes) = self.window(file, &window).0.try_lock() {
                fill(&mut bytes, window, read)?;
            }
        }
        Ok(())
    }

    /// Returns a window, read now unless it is kept.
    pub(super) fn get(
        &self,
        file: &Arc<SourceFile>,
        window: Range<u64>,
        read: Read<'_>,
    ) -> Result<Option<Arc<DirectBuffer>>> {
        let kept = self.window(file, &window);
        let mut bytes = lock(&kept.0);
        fill(&mut bytes, window, read)?;
        Ok(bytes.clone())
    }

    fn window(&self, file: &Arc<SourceFile>, range: &Range<u64>) -> Arc<Window> {
        let key = Key(Arc::downgrade(file), range.start);
        lock(&self.0).get_or_insert(key, Arc::default).clone()
    }
}

fn fill(bytes: &mut Option<Arc<DirectBuffer>>, range: Range<u64>, read: Read<'_>) -> Result<()> {
    if bytes.is_none() {
        *bytes = read(range)?.map(Arc::new);
    }
    Ok(())
}

/// The windows around a range.
pub(super) fn ranges(file: &SourceFile, range: &Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let numbers = range.start / SIZE..range.end.div_ceil(SIZE);
    let size = file.size();
    numbers.map(move |number| number * SIZE..size.min((number + 1) * SIZE))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
