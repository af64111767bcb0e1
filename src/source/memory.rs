//! Memory in which bytes are put together: kept from one read to the next, because pages that were touched before cost
//! nothing.

use std::io;
use std::mem::take;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::mechanism::Mechanism;

/// Bytes of free buffers that a mount keeps: what sixteen threads hold at once.
const KEPT: usize = 32 << 20;

/// Free buffers of a mount, the one that was used last at the end.
#[derive(Debug, Default)]
pub(super) struct Spare(Mutex<Vec<Vec<u8>>>);

impl Spare {
    /// Returns `length` bytes of any value.
    pub(super) fn take(self: &Arc<Self>, length: usize) -> io::Result<Memory> {
        let mut bytes = self.free().pop().unwrap_or_default();
        let more = length.saturating_sub(bytes.len());
        // One reader without memory must not end the mount for all.
        bytes
            .try_reserve_exact(more)
            .map_err(|_| io::Error::from_raw_os_error(libc::ENOMEM))?;
        bytes.resize(bytes.len() + more, 0);
        Ok(Memory {
            bytes,
            length,
            home: self.clone(),
        })
    }

    fn free(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Memory that returns to the free buffers on drop.
#[derive(Debug)]
pub struct Memory {
    bytes: Vec<u8>,
    length: usize,
    home: Arc<Spare>,
}

impl Deref for Memory {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

impl DerefMut for Memory {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(..self.length).unwrap_or_default()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let bytes = take(&mut self.bytes);
        let mut free = self.home.free();
        let held: usize = free.iter().map(Vec::len).sum();
        if !bytes.is_empty() && Mechanism::Spare.is_on() && held + bytes.len() <= KEPT {
            free.push(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_used_again_and_bounded() {
        let spare = Arc::new(Spare::default());
        drop(spare.take(100).unwrap());
        assert_eq!(spare.free().iter().map(Vec::len).sum::<usize>(), 100);
        let (small, large) = (spare.take(9).unwrap(), spare.take(KEPT).unwrap());
        assert_eq!((small.len(), large.len()), (9, KEPT));
        drop((small, large));
        assert_eq!(spare.free().iter().map(Vec::len).sum::<usize>(), 100);
    }

    #[test]
    fn memory_that_cannot_be_had_is_an_error() {
        let error = Arc::new(Spare::default()).take(usize::MAX / 2).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOMEM));
    }
}
