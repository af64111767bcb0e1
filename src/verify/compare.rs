//! Two tensors, element by element.

use super::finding::{Difference, Outcome};
use super::reading::{BLOCK, Reading, each_block};
use super::values::{Number, number};
use crate::error::Result;
use crate::tensor::{Dtype, Tensor};

/// The differing elements found so far.
struct Elements {
    dtype: Dtype,
    count: u64,
    /// Number in row-major order and values of the first.
    first: Option<(u64, f64, f64)>,
    largest: Option<f64>,
    nan: u64,
}

pub fn compare(here: &Tensor, there: &Tensor, reading: &Reading<'_>) -> Result<Outcome> {
    if (here.dtype(), here.shape()) != (there.dtype(), there.shape()) {
        let kind = |tensor: &Tensor| format!("{} {}", tensor.dtype(), tensor.shape());
        let (here, there) = (kind(here), kind(there));
        return Ok(Outcome::Different(Difference::Kind { here, there }));
    }
    let mut elements = Elements::of(here.dtype());
    let mut other = vec![0; BLOCK.min(here.bytes()) as usize];
    each_block(here.bytes(), &mut |start, block| {
        let other = &mut other[..block.len()];
        reading.reader.read_tensor_at(here, start, block)?;
        reading.reader.read_tensor_at(there, start, other)?;
        (reading.progress)(block.len() as u64);
        if block != other {
            elements.add(start / here.unit(), block, other);
        }
        Ok(())
    })?;
    Ok(elements.outcome(here))
}

impl Elements {
    fn of(dtype: Dtype) -> Self {
        Self {
            dtype,
            count: 0,
            first: None,
            largest: None,
            nan: 0,
        }
    }

    fn add(&mut self, start: u64, here: &[u8], there: &[u8]) {
        let unit = self.dtype.bytes().unwrap_or(1) as usize;
        let pairs = here.chunks_exact(unit).zip(there.chunks_exact(unit));
        for (at, (here, there)) in (start..).zip(pairs) {
            if here != there {
                let (a, b) = (number(self.dtype, here), number(self.dtype, there));
                self.count += 1;
                self.first.get_or_insert((at, a, b));
                self.nan += u64::from(a.is_nan() != b.is_nan());
                if !a.is_nan() && !b.is_nan() {
                    self.largest = Some(self.largest.unwrap_or(0.0).max((a - b).abs()));
                }
            }
        }
    }

    fn outcome(self, tensor: &Tensor) -> Outcome {
        let Some((at, here, there)) = self.first else {
            return Outcome::Equal;
        };
        Outcome::Different(Difference::Elements {
            count: self.count,
            first: index(at, tensor),
            here: Number(here),
            there: Number(there),
            largest: self.largest.map(Number),
            nan: self.nan,
        })
    }
}

/// The index of an element; of a type smaller than a byte, the number of its byte.
fn index(mut at: u64, tensor: &Tensor) -> Vec<u64> {
    if tensor.dtype().bytes().is_none() {
        return vec![at];
    }
    let mut index: Vec<u64> = Vec::new();
    for size in tensor.shape().dims().iter().rev() {
        index.push(at % size);
        at /= size;
    }
    index.reverse();
    index
}
