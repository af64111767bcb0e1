//! Windows of source files whose bytes go to several replies, such as the heads of a tensor in rotary order or a rank's columns:
//! read past the page cache, whole, once, and kept for the next few replies.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use lru::LruCache;

use crate::error::Result;
use crate::tensor::{Landed, SourceFile};

/// Those of the replies that are under way, and of those before.
const KEPT: NonZeroUsize = NonZeroUsize::new(24).unwrap();

/// Read by the first who needs it, for whom the others wait.
type Window = Arc<Mutex<Option<Arc<Landed>>>>;

/// One reply's windows of a file, in turn.
pub(super) struct Windows<'a> {
    file: &'a SourceFile,
    /// The last and its number.
    last: Option<(u64, Arc<Landed>)>,
}

impl<'a> Windows<'a> {
    /// Bytes of a window: about as many as the rows of a reply are spread over.
    pub const SIZE: u64 = Landed::MOST;

    pub fn of(file: &'a SourceFile) -> Self {
        Self { file, last: None }
    }

    /// Fills `target` from `offset` of the file. `false` where that is not read past the page cache.
    pub fn read(&mut self, offset: u64, target: &mut [u8]) -> Result<bool> {
        let end = offset + target.len() as u64;
        let mut rest = target;
        for number in numbers(offset..end) {
            let Some(window) = self.window(number)? else {
                return Ok(false);
            };
            let start = number * Self::SIZE;
            let bytes = &window[offset.saturating_sub(start) as usize..];
            let (part, behind) = rest.split_at_mut(rest.len().min(bytes.len()));
            part.copy_from_slice(&bytes[..part.len()]);
            rest = behind;
        }
        Ok(true)
    }

    fn window(&mut self, number: u64) -> Result<Option<&Landed>> {
        if self.last.as_ref().is_none_or(|(last, _)| *last != number) {
            let landed = landed(self.file, number)?;
            self.last = landed.map(|landed| (number, landed));
        }
        Ok(self.last.as_ref().map(|(_, landed)| &**landed))
    }
}

/// Reads those windows around a range that nobody is reading: who waits for one reads another.
pub(super) fn read_free(file: &SourceFile, range: Range<u64>) -> Result<()> {
    for number in numbers(range) {
        if let Ok(mut landed) = window(file, number).try_lock() {
            land(file, number, &mut landed)?;
        }
    }
    Ok(())
}

fn numbers(range: Range<u64>) -> Range<u64> {
    range.start / Windows::SIZE..range.end.div_ceil(Windows::SIZE)
}

fn landed(file: &SourceFile, number: u64) -> Result<Option<Arc<Landed>>> {
    let window = window(file, number);
    let mut landed = window.lock().unwrap_or_else(PoisonError::into_inner);
    land(file, number, &mut landed)?;
    Ok(landed.clone())
}

fn land(file: &SourceFile, number: u64, landed: &mut Option<Arc<Landed>>) -> Result<()> {
    if landed.is_none() {
        let start = number * Windows::SIZE;
        let range = start..file.size().min(start + Windows::SIZE);
        *landed = file.read_past_cache(range)?.map(Arc::new);
    }
    Ok(())
}

fn window(file: &SourceFile, number: u64) -> Window {
    static WINDOWS: LazyLock<Mutex<LruCache<(u64, u64), Window>>> =
        LazyLock::new(|| Mutex::new(LruCache::new(KEPT)));
    let mut windows = WINDOWS.lock().unwrap_or_else(PoisonError::into_inner);
    windows
        .get_or_insert((file.id(), number), Window::default)
        .clone()
}
