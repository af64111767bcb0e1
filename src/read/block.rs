//! A block: rows of a transposed tensor, produced in slabs, each of which comes from one stretch of the source.

use std::io;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::error::{Error, Result};
use crate::tensor::{Identity, Tensor};

/// Small matrices come several to a block.
const USUAL: u64 = 8 << 20;

/// Bytes of a slab: they fit the processor's cache, and make long reads where all rows of a matrix are in the block.
const SLAB: u64 = 1 << 20;

/// Slabs are multiples of so many bytes wide: whole lines of the processor's cache.
const LINE: u64 = 64;

/// Rows of a part of a matrix come in multiples of this many: whole such lines in the source.
const ROWS: u64 = 64;

/// About what it takes to keep track of a block.
const OVERHEAD: u64 = 1024;

/// Fills memory with all bytes of a tensor.
pub(super) type Produce<'p> = &'p dyn Fn(&Tensor, &mut [u8]) -> Result<()>;

/// Some matrices of a tensor, or some rows of one.
#[derive(Debug)]
pub(super) struct Block {
    /// Of the whole tensor.
    pub identity: Identity,
    /// Where in the whole tensor it lies, in bytes.
    pub range: Range<u64>,
    /// Matrices, rows, columns; none once all slabs are produced, so that the source need not stay open.
    tensor: Mutex<Option<Tensor>>,
    /// Bytes of a row, and of a slab's part of one.
    row: u64,
    part: u64,
    slabs: Box<[Slab]>,
    /// Memory for whole slabs from blocks that are no longer needed: pages that were touched before cost nothing.
    spare: Mutex<Vec<Vec<u8>>>,
}

/// Some columns of all rows, one row's after the other's.
#[derive(Debug, Default)]
struct Slab {
    bytes: OnceLock<Vec<u8>>,
    /// Held by who produces it.
    producer: Mutex<()>,
}

impl Block {
    /// The block in which byte `offset` of a tensor lies and that costs at most `limit`. None where not even a row is so short.
    pub fn around(tensor: &Tensor, offset: u64, limit: u64) -> Result<Option<Self>> {
        let limit = limit.saturating_sub(OVERHEAD);
        let unit = tensor.unit();
        let mut sides = tensor.shape().dims().iter().rev().copied();
        let (columns, rows) = (sides.next().unwrap_or(1), sides.next().unwrap_or(1));
        let row = columns * unit;
        let matrix = rows * row;
        if offset >= tensor.bytes() || row > limit {
            return Ok(None);
        }
        let all = tensor.bytes() / matrix;
        let (matrices, height) = match matrix <= limit {
            true => ((USUAL.min(limit) / matrix).max(1), rows),
            false => (1, height(rows, limit / row)),
        };
        let (number, matrices) = aligned(offset / matrix, matrices, all);
        let (first, height) = aligned(offset / row % rows, height, rows);
        let start = number * matrix + first * row;
        let block_rows = tensor
            .reshape(&[all, rows, columns])?
            .narrow(0, number, matrices)?
            .narrow(1, first, height)?;
        let part = (SLAB / (matrices * height)).max(1);
        let part = part.next_multiple_of(LINE).min(row);
        Ok(Some(Self {
            identity: tensor.identity(),
            range: start..start + matrices * height * row,
            tensor: Mutex::new(Some(block_rows)),
            row,
            part,
            slabs: (0..row.div_ceil(part)).map(|_| Slab::default()).collect(),
            spare: Mutex::default(),
        }))
    }

    /// A block that uses the memory of others, as far as it is of the right size.
    pub fn in_memory_of(mut self, others: Vec<Self>) -> Self {
        let slab = self.part * ((self.range.end - self.range.start) / self.row);
        let memory = others.into_iter().flat_map(Self::into_memory);
        let suitable = memory.filter(|bytes| bytes.capacity() as u64 == slab);
        let whole_slabs = self.row / self.part;
        self.spare = Mutex::new(suitable.take(whole_slabs as usize).collect());
        self
    }

    fn into_memory(self) -> impl Iterator<Item = Vec<u8>> {
        let spare = self
            .spare
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        let slabs = self.slabs.into_iter();
        slabs
            .filter_map(|slab| slab.bytes.into_inner())
            .chain(spare)
    }

    /// Its bytes, and about what it takes to keep track of it.
    pub fn cost(&self) -> u64 {
        self.range.end - self.range.start + OVERHEAD
    }

    /// Fills `target` from `offset` of the whole tensor.
    pub fn read(&self, offset: u64, target: &mut [u8], produce: Produce<'_>) -> Result<()> {
        self.produce(produce)?;
        let (row, part) = (self.row as usize, self.part as usize);
        let slabs: Vec<&[u8]> = self.slabs.iter().map(Slab::bytes).collect();
        let mut at = (offset - self.range.start) as usize;
        let mut rest = target;
        while !rest.is_empty() {
            let (number, slab) = (at / row, at % row / part);
            let start = slab * part;
            let width = part.min(row - start);
            let inside = at % row - start;
            let bytes = &slabs[slab][number * width + inside..][..rest.len().min(width - inside)];
            let (target, behind) = rest.split_at_mut(bytes.len());
            target.copy_from_slice(bytes);
            (rest, at) = (behind, at + bytes.len());
        }
        Ok(())
    }

    /// Produces the slabs that no other thread is producing, then waits for the others.
    pub fn produce(&self, produce: Produce<'_>) -> Result<()> {
        for (number, slab) in self.missing() {
            if let Ok(_producer) = slab.producer.try_lock() {
                self.produce_slab(number, slab, produce)?;
            }
        }
        for (number, slab) in self.missing() {
            let _producer = lock(&slab.producer);
            self.produce_slab(number, slab, produce)?;
        }
        *lock(&self.tensor) = None;
        Ok(())
    }

    fn missing(&self) -> impl Iterator<Item = (u64, &Slab)> {
        (0..)
            .zip(&self.slabs)
            .filter(|(_, slab)| slab.bytes.get().is_none())
    }

    fn produce_slab(&self, number: u64, slab: &Slab, produce: Produce<'_>) -> Result<()> {
        let Some(tensor) = lock(&self.tensor).clone() else {
            return Ok(());
        };
        if slab.bytes.get().is_some() {
            return Ok(());
        }
        let start = number * self.part;
        let width = self.part.min(self.row - start);
        let unit = tensor.unit();
        let tensor = tensor.narrow(2, start / unit, width / unit)?;
        let spare = match width == self.part {
            true => lock(&self.spare).pop(),
            false => None,
        };
        let mut bytes = spare.unwrap_or_default();
        let length = tensor.bytes() as usize;
        let out_of_memory = |_| {
            let error = io::Error::from_raw_os_error(libc::ENOMEM);
            Error::io("memory".as_ref(), error)
        };
        bytes
            .try_reserve_exact(length.saturating_sub(bytes.len()))
            .map_err(out_of_memory)?;
        bytes.resize(length, 0);
        produce(&tensor, &mut bytes)?;
        slab.bytes.set(bytes).ok();
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where the stretch of `length` around `at` begins, and what there is of it before `end`.
fn aligned(at: u64, length: u64, end: u64) -> (u64, u64) {
    let start = at / length * length;
    (start, length.min(end - start))
}

/// Rows of the equal parts into which so many rows are cut, each of at most `most`.
fn height(rows: u64, most: u64) -> u64 {
    let unit = if most < ROWS { 1 } else { ROWS };
    let parts = rows.div_ceil(most / unit * unit);
    rows.div_ceil(parts).next_multiple_of(unit)
}

impl Slab {
    /// Empty before it was produced.
    fn bytes(&self) -> &[u8] {
        self.bytes.get().map_or(&[], Vec::as_slice)
    }
}
