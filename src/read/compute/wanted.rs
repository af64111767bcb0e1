//! The box of a result that a kernel fills, and the inputs that it takes.

use std::ops::Range;

use crate::error::{Error, Result};
use crate::read::cast::{narrow, widen};
use crate::read::inputs::Inputs;
use crate::source::Bytes;
use crate::tensor::{Dtype, Tensor};

/// Elements that are computed at a time, so that all sides stay in the first-level cache.
pub(super) const CHUNK: usize = 1024;

/// A box of a computed matrix, and the matrices that it is computed from.
pub(super) struct Wanted<'a> {
    pub from: &'a dyn Inputs,
    pub inputs: &'a [Tensor],
    pub dtype: Dtype,
    pub rows: Range<u64>,
    pub columns: Range<u64>,
}

impl Wanted<'_> {
    pub fn input(&self, number: usize) -> Result<&Tensor> {
        let lacks = || Error::Mapping(format!("a kernel lacks its input {number}"));
        self.inputs.get(number).ok_or_else(lacks)
    }

    pub fn fetch(&self, input: &Tensor, rows: Range<u64>, columns: Range<u64>) -> Result<Bytes> {
        self.from.fetch(input, rows, columns)
    }

    pub fn width(&self) -> usize {
        (self.columns.end - self.columns.start) as usize
    }

    /// Bytes of an element of the result.
    pub fn unit(&self) -> usize {
        self.dtype.bytes().unwrap_or(1) as usize
    }

    /// Reads the same box of all inputs and calls `kernel` for a few elements of each at a time.
    pub fn elementwise(
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

    pub fn floats(&self, number: usize, rows: Range<u64>, columns: Range<u64>) -> Result<Vec<f32>> {
        self.from.floats(self.input(number)?, rows, columns)
    }
}

/// Rounds results. Every NaN becomes the same one: which one arithmetic gives differs between processors.
pub(super) fn finish(dtype: Dtype, floats: &mut [f32], target: &mut [u8]) {
    if dtype != Dtype::BF16 {
        for float in floats.iter_mut() {
            *float = if float.is_nan() { f32::NAN } else { *float };
        }
    }
    narrow(dtype, floats, target);
}
