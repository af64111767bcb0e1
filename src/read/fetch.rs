//! Boxes of the inputs of a kernel, in memory of their own.

use std::cell::RefCell;
use std::ops::{Deref, Range};

use super::cast::widen;
use super::plan::Plan;
use super::room;
use super::span::Span;
use crate::error::Result;
use crate::source::DirectBuffer;
use crate::tensor::{Dtype, Tensor};

thread_local! {
    /// Memory of inputs that are no longer needed.
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Buffers that a thread keeps: an average of eight needs as many at once.
const KEPT: usize = 8;

/// The bytes of a box, row after row.
pub(super) struct Fetched {
    direct: Option<DirectBuffer>,
    bytes: Vec<u8>,
    length: usize,
}

impl Deref for Fetched {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.direct {
            Some(direct) => direct,
            None => self.bytes.get(..self.length).unwrap_or_default(),
        }
    }
}

impl Drop for Fetched {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        SPARE.with_borrow_mut(|spare| {
            if bytes.capacity() > 0 && spare.len() < KEPT {
                spare.push(bytes);
            }
        });
    }
}

/// Reads a box of a matrix.
pub(super) fn fetch(tensor: &Tensor, rows: Range<u64>, columns: Range<u64>) -> Result<Fetched> {
    let elements = (rows.end - rows.start) * (columns.end - columns.start);
    let length = (elements * tensor.unit()) as usize;
    let plan = Plan::of_box(tensor, rows, columns)?;
    let mut fetched = Fetched {
        direct: None,
        bytes: Vec::new(),
        length,
    };
    if let Some(copy) = plan.single_copy(length)
        && let Some(direct) = copy.file.read_direct(copy.range())?
    {
        fetched.direct = Some(direct);
        return Ok(fetched);
    }
    fetched.bytes = SPARE.with_borrow_mut(Vec::pop).unwrap_or_default();
    plan.execute(room(&mut fetched.bytes, length)?)?;
    Ok(fetched)
}

/// Reads a box of a matrix of numbers as f32.
pub(super) fn fetch_floats(
    tensor: &Tensor,
    rows: Range<u64>,
    columns: Range<u64>,
) -> Result<Vec<f32>> {
    let bytes = fetch(tensor, rows, columns)?;
    Ok(floats(tensor.dtype(), &bytes))
}

/// All numbers of a type as f32. A byte without a type of its own is an exponent, as in F8_E8M0.
pub(super) fn floats(dtype: Dtype, bytes: &[u8]) -> Vec<f32> {
    let mut floats = vec![0.0; bytes.len() / dtype.bytes().unwrap_or(1) as usize];
    widen(dtype, bytes, &mut floats);
    floats
}

/// The ranges of the sources that a box is read from.
pub(super) fn spans_of_box(
    tensor: &Tensor,
    rows: Range<u64>,
    columns: Range<u64>,
) -> Result<Vec<Span>> {
    Ok(Plan::of_box(tensor, rows, columns)?.spans()?.collect())
}
