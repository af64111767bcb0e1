//! Factors that experts share. PEFT keeps lora_B of all experts as one matrix [out, rank * experts] with the expert innermost, so
//! that each expert has an element here and there in every row.
//!
//! Such a matrix is read row after row, for as many experts at once as may be kept, instead of element by element for each.

use std::ops::Range;

use crate::error::Result;
use crate::read::inputs::Inputs;
use crate::tensor::{Nest, Part, Tensor, each_offset, pieces_of_box};

/// Bytes of the matrix, in f32, that are read at a time.
const BAND: u64 = 1 << 20;

/// Marks what is kept of an array here, which may be a factor itself.
const MARK: u64 = 1 << 63;

/// Returns a box of a matrix of numbers as f32.
pub(super) fn floats(
    from: &dyn Inputs,
    tensor: &Tensor,
    rows: Range<u64>,
    columns: Range<u64>,
) -> Result<Vec<f32>> {
    let elements = (rows.end - rows.start) * (columns.end - columns.start);
    let mut nests = Vec::new();
    pieces_of_box(tensor, rows.clone(), columns.clone(), &mut |part| {
        if let Part::Stored(nest) = part {
            nests.push(nest);
        }
        Ok(())
    })?;
    let array = tensor.stored_array();
    match array.and_then(|(array, start)| Shared::of(array, start, &nests)) {
        Some(shared) => shared.read(from, elements as usize),
        None => from.floats(tensor, rows, columns),
    }
}

/// Elements of one expert in an array that lies row after row.
struct Shared<'a> {
    array: &'a Tensor,
    /// Where the array begins in its file.
    start: u64,
    nests: &'a [Nest<'a>],
    /// Steps between the elements of one expert are multiples of this.
    experts: u64,
}

impl<'a> Shared<'a> {
    /// `None` where the elements have no step of several experts in common.
    fn of(array: &'a Tensor, start: u64, nests: &'a [Nest<'a>]) -> Option<Self> {
        let mut shared = Self {
            array,
            start,
            nests,
            experts: 0,
        };
        let first = shared.first(nests.first()?);
        for nest in nests {
            let loops = nest.loops().iter().filter(|each| each.count > 1);
            let steps = loops.map(|each| each.source);
            let apart = shared.first(nest).abs_diff(first);
            shared.experts = steps.chain([apart]).fold(shared.experts, divisor);
        }
        let (_, columns) = array.sides();
        let is_shared = shared.experts > 1 && columns.is_multiple_of(shared.experts);
        is_shared.then_some(shared)
    }

    /// The first element of a nest, counted in the array.
    fn first(&self, nest: &Nest<'_>) -> u64 {
        nest.source.saturating_sub(self.start) / self.array.unit()
    }

    fn read(&self, from: &dyn Inputs, elements: usize) -> Result<Vec<f32>> {
        let (rows, columns) = self.array.sides();
        let of_each = 4 * rows * (columns / self.experts);
        let room = from.factors().limit() / 2;
        let together = (room / of_each.max(1)).clamp(1, self.experts);
        let expert = { self.nests.first() }.map_or(0, |nest| self.first(nest) % self.experts);
        let start = expert / together * together;
        let group = start..self.experts.min(start + together);
        let key = MARK | self.experts << 32 | start;
        let gather = || self.gather(from, &group);
        let factor = from.factors().kept(self.array, key, gather)?;
        let (values, width) = (factor.values(), group.end - group.start);
        let mut floats = vec![0.0; elements];
        for nest in self.nests {
            let (first, destination) = (self.first(nest), nest.destination);
            each_offset(nest.loops(), first, destination, &mut |source, at| {
                let number = source / self.experts * width + expert - start;
                let value = values.get(number as usize);
                if let (Some(float), Some(value)) = (floats.get_mut(at as usize), value) {
                    *float = *value;
                }
            });
        }
        Ok(floats)
    }

    /// The elements of a group of experts, row after row.
    fn gather(&self, from: &dyn Inputs, group: &Range<u64>) -> Result<Vec<f32>> {
        let (rows, columns) = self.array.sides();
        let matrix = self.array.reshape(&[rows, columns])?;
        let group = group.start as usize..group.end as usize;
        let count = rows * (columns / self.experts);
        let mut gathered = Vec::with_capacity(count as usize * group.len());
        let band = (BAND / (4 * columns)).max(1);
        for start in (0..rows).step_by(band as usize) {
            let some = start..rows.min(start + band);
            let floats = from.floats(&matrix, some, 0..columns)?;
            for all in floats.chunks(self.experts as usize) {
                gathered.extend_from_slice(all.get(group.clone()).unwrap_or_default());
            }
        }
        Ok(gathered)
    }
}

/// The greatest common divisor; of 0 and a number, that number.
fn divisor(a: u64, b: u64) -> u64 {
    match b {
        0 => a,
        b => divisor(b, a % b),
    }
}
