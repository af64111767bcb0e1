//! Windows of source files whose rows go to several replies, such as the heads of a tensor in rotary order: read past the page
//! cache, whole, once, and kept for the next few replies.

use std::num::NonZeroUsize;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use lru::LruCache;

use crate::error::Result;
use crate::tensor::{Landed, SourceFile};

/// Bytes of a window: about as many as the rows of a reply are spread over.
pub(super) const SIZE: u64 = 1 << 20;

/// Those of the replies that are under way, and of those before.
const KEPT: NonZeroUsize = NonZeroUsize::new(12).unwrap();

/// Read by the first who needs it, for whom the others wait.
type Window = Arc<Mutex<Option<Arc<Landed>>>>;

/// Fills `target` from `offset` of a file. `false` where that is not read past the page cache.
pub(super) fn read(file: &SourceFile, offset: u64, target: &mut [u8]) -> Result<bool> {
    let end = offset + target.len() as u64;
    let mut rest = target;
    for number in offset / SIZE..end.div_ceil(SIZE) {
        let Some(landed) = landed(file, number)? else {
            return Ok(false);
        };
        let start = number * SIZE;
        let bytes = &landed[offset.saturating_sub(start) as usize..];
        let (part, behind) = rest.split_at_mut(rest.len().min(bytes.len()));
        part.copy_from_slice(&bytes[..part.len()]);
        rest = behind;
    }
    Ok(true)
}

fn landed(file: &SourceFile, number: u64) -> Result<Option<Arc<Landed>>> {
    let window = window((file.id(), number));
    let mut landed = window.lock().unwrap_or_else(PoisonError::into_inner);
    if landed.is_none() {
        let start = number * SIZE;
        let range = start..file.size().min(start + SIZE);
        *landed = file.read_past_cache(range)?.map(Arc::new);
    }
    Ok(landed.clone())
}

fn window(key: (u64, u64)) -> Window {
    static WINDOWS: LazyLock<Mutex<LruCache<(u64, u64), Window>>> =
        LazyLock::new(|| Mutex::new(LruCache::new(KEPT)));
    let mut windows = WINDOWS.lock().unwrap_or_else(PoisonError::into_inner);
    windows.get_or_insert(key, Window::default).clone()
}
