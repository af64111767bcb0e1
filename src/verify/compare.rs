//! Two tensors, element by element.

use super::finding::{Difference, DifferentElements, Outcome};
use super::reading::{BLOCK, Reading};
use super::values::{Number, number};
use crate::error::Result;
use crate::tensor::{Dtype, Tensor};

/// The differing elements found so far.
struct Elements {
    /// Types on both sides: the same, or two of numbers.
    dtypes: [Dtype; 2],
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
    let found = elements(here, there, reading)?;
    let different = |elements| Outcome::Different(Difference::Elements(elements));
    Ok(found.map_or(Outcome::Equal, different))
}

/// Compares the elements of two tensors of one shape: by their bytes, or as numbers where the types differ.
pub fn elements(
    here: &Tensor,
    there: &Tensor,
    reading: &Reading<'_>,
) -> Result<Option<DifferentElements>> {
    let mut found = Elements::of([here.dtype(), there.dtype()]);
    let (total, units) = (here.bytes() / here.unit(), [here.unit(), there.unit()]);
    let most = (BLOCK / units[0].max(units[1])).min(total);
    let [mut a, mut b] = units.map(|unit| vec![0; (most * unit) as usize]);
    for start in (0..total).step_by(most.max(1) as usize) {
        let count = most.min(total - start);
        let (a, b) = (
            &mut a[..(count * units[0]) as usize],
            &mut b[..(count * units[1]) as usize],
        );
        reading.reader.read_tensor_at(here, start * units[0], a)?;
        reading.reader.read_tensor_at(there, start * units[1], b)?;
        (reading.progress)(a.len() as u64);
        found.add(start, a, b);
    }
    Ok(found.different(here))
}

impl Elements {
    fn of(dtypes: [Dtype; 2]) -> Self {
        Self {
            dtypes,
            count: 0,
            first: None,
            largest: None,
            nan: 0,
        }
    }

    fn add(&mut self, start: u64, here: &[u8], there: &[u8]) {
        let [a, b] = self.dtypes;
        if a == b && here == there {
            return;
        }
        let unit = |dtype: Dtype| dtype.bytes().unwrap_or(1) as usize;
        let pairs = here.chunks_exact(unit(a)).zip(there.chunks_exact(unit(b)));
        for (at, (here, there)) in (start..).zip(pairs) {
            let values = (number(a, here), number(b, there));
            let is_different = match a == b {
                true => here != there,
                false => values.0 != values.1 && !(values.0.is_nan() && values.1.is_nan()),
            };
            if is_different {
                self.note(at, values);
            }
        }
    }

    fn note(&mut self, at: u64, (a, b): (f64, f64)) {
        self.count += 1;
        self.first.get_or_insert((at, a, b));
        self.nan += u64::from(a.is_nan() != b.is_nan());
        // Infinities of one sign, in two types, differ by nothing.
        let difference = if a == b { 0.0 } else { (a - b).abs() };
        if !difference.is_nan() {
            self.largest = Some(self.largest.unwrap_or(0.0).max(difference));
        }
    }

    fn different(self, tensor: &Tensor) -> Option<DifferentElements> {
        let (at, here, there) = self.first?;
        Some(DifferentElements {
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
