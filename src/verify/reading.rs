//! How everything is read.

use std::num::NonZeroUsize;

use crate::error::Result;
use crate::read::Reader;

/// Bytes read at a time.
pub(super) const BLOCK: u64 = 4 << 20;

/// The reader of tensors and files, and what it is to do beside reading.
pub struct Reading<'a> {
    pub reader: Reader,
    pub threads: NonZeroUsize,
    /// Whether NaN and infinite values are counted.
    pub counts: bool,
    /// Told of bytes read, from several threads.
    pub progress: &'a (dyn Fn(u64) + Sync),
}

/// Calls `fill` with the offset of each block and the room for its bytes.
pub(super) fn each_block(
    bytes: u64,
    fill: &mut dyn FnMut(u64, &mut [u8]) -> Result<()>,
) -> Result<()> {
    let mut block = vec![0; BLOCK.min(bytes) as usize];
    for start in (0..bytes).step_by(BLOCK as usize) {
        fill(start, &mut block[..BLOCK.min(bytes - start) as usize])?;
    }
    Ok(())
}
