//! Boxes of the inputs of kernels.

use std::ops::Range;

use super::cast::widen;
use super::factors::Factors;
use crate::error::Result;
use crate::source::{Bytes, Memory};
use crate::tensor::{Dtype, Tensor};

/// Reads the inputs of kernels, which may be computed themselves.
pub(super) trait Inputs {
    /// Returns the bytes of a box of a matrix, row after row.
    fn fetch(&self, tensor: &Tensor, rows: Range<u64>, columns: Range<u64>) -> Result<Bytes>;

    /// Returns memory of any value, in which elements are put together.
    fn memory(&self, length: usize) -> Result<Memory>;

    /// The inputs that many replies share.
    fn factors(&self) -> &Factors;
}

impl dyn Inputs + '_ {
    /// Returns a box of a matrix of numbers as f32.
    pub fn floats(
        &self,
        tensor: &Tensor,
        rows: Range<u64>,
        columns: Range<u64>,
    ) -> Result<Vec<f32>> {
        let bytes = self.fetch(tensor, rows, columns)?;
        Ok(floats(tensor.dtype(), &bytes))
    }
}

/// Returns all numbers of a type as f32. A byte without a type of its own is an exponent, as in F8_E8M0.
fn floats(dtype: Dtype, bytes: &[u8]) -> Vec<f32> {
    let mut floats = vec![0.0; bytes.len() / dtype.bytes().unwrap_or(1) as usize];
    widen(dtype, bytes, &mut floats);
    floats
}
