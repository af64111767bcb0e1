//! The kernels: each fills a box of its result with elements of the result's type.

mod blocks_of_fp8;
mod combine;
mod low_rank;
mod scaled;

use std::ops::Range;

pub(super) use scaled::{e4m3, e8m0};

use super::cast::{narrow, widen};
use super::inputs::Inputs;
use crate::error::{Error, Result};
use crate::source::Bytes;
use crate::tensor::{Dtype, Kernel, Tensor};

/// Elements that are computed at a time, so that all sides stay in the first-level cache.
const CHUNK: usize = 1024;

/// Fills `target` with a box of a computed matrix, row after row.
pub(super) fn compute(
    from: &dyn Inputs,
    tensor: &Tensor,
    rows: Range<u64>,
    columns: Range<u64>,
    target: &mut [u8],
) -> Result<()> {
    let Some((kernel, inputs)) = tensor.as_computed() else {
        return Err(Error::Mapping("a stored array has no kernel".to_owned()));
    };
    let wanted = Wanted {
        from,
        inputs,
        dtype: tensor.dtype(),
        rows,
        columns,
    };
    match kernel {
        // A cast of a plain tensor is read as that is; this is one of an input.
        Kernel::Cast => Err(Error::Mapping("a cast is no matrix".to_owned())),
        Kernel::Combine { weights, divisor } => wanted.elementwise(target, |all, out| {
            combine::combine(all, weights, *divisor, out)
        }),
        Kernel::Deltas { weights } => {
            wanted.elementwise(target, |all, out| combine::deltas(all, weights, out))
        }
        Kernel::Shift { scale } => {
            wanted.elementwise(target, |all, out| combine::shift(all, *scale, out))
        }
        Kernel::LowRank(kernel) => low_rank::fill(&wanted, kernel, target),
        Kernel::Scaled(kernel) => scaled::fill(&wanted, kernel, target),
        Kernel::BlockFp8 => blocks_of_fp8::fill(&wanted, target),
        Kernel::BlockScales => blocks_of_fp8::fill_scales(&wanted, target),
    }
}

/// A box of a computed matrix, and the matrices that it is computed from.
struct Wanted<'a> {
    from: &'a dyn Inputs,
    inputs: &'a [Tensor],
    dtype: Dtype,
    rows: Range<u64>,
    columns: Range<u64>,
}

impl Wanted<'_> {
    fn input(&self, number: usize) -> Result<&Tensor> {
        let lacks = || Error::Mapping(format!("a kernel lacks its input {number}"));
        self.inputs.get(number).ok_or_else(lacks)
    }

    fn fetch(&self, input: &Tensor, rows: Range<u64>, columns: Range<u64>) -> Result<Bytes> {
        self.from.fetch(input, rows, columns)
    }

    fn width(&self) -> usize {
        (self.columns.end - self.columns.start) as usize
    }

    /// Bytes of an element of the result.
    fn unit(&self) -> usize {
        self.dtype.bytes().unwrap_or(1) as usize
    }

    /// Reads the same box of all inputs and calls `kernel` for a few elements of each at a time.
    fn elementwise(
        &self,
        target: &mut [u8],
        kernel: impl Fn(&[&mut [f32]], &mut [f32]),
    ) -> Result<()> {
        let fetch = |input| self.fetch(input, self.rows.clone(), self.columns.clone());
        let inputs: Vec<_> = self.inputs.iter().map(fetch).collect::<Result<_>>()?;
        let mut floats = vec![0.0; CHUNK * inputs.len()];
        let mut result = [0.0; CHUNK];
        for (number, target) in target.chunks_mut(CHUNK * self.unit()).enumerate() {
            let count = target.len() / self.unit();
            let mut parts: Vec<&mut [f32]> = floats
                .chunks_mut(CHUNK)
                .filter_map(|part| part.get_mut(..count))
                .collect();
            for ((part, bytes), input) in parts.iter_mut().zip(&inputs).zip(self.inputs) {
                let unit = input.unit() as usize;
                let start = number * CHUNK * unit;
                let bytes = bytes.get(start..start + count * unit).unwrap_or_default();
                widen(input.dtype(), bytes, part);
            }
            let result = result.get_mut(..count).unwrap_or_default();
            kernel(&parts, result);
            finish(self.dtype, result, target);
        }
        Ok(())
    }

    fn floats(&self, number: usize, rows: Range<u64>, columns: Range<u64>) -> Result<Vec<f32>> {
        self.from.floats(self.input(number)?, rows, columns)
    }
}

/// Rounds results. Every NaN becomes the same one: which one arithmetic gives differs between processors.
fn finish(dtype: Dtype, floats: &mut [f32], target: &mut [u8]) {
    if dtype != Dtype::BF16 {
        for float in floats.iter_mut() {
            *float = if float.is_nan() { f32::NAN } else { *float };
        }
    }
    narrow(dtype, floats, target);
}

#[cfg(test)]
mod tests;
