//! Low-rank updates: the product of two narrow matrices, added to a wide one.

use std::ops::Range;
use std::sync::Arc;

use multiversion::multiversion;

use super::interleaved;
use super::wanted::{CHUNK, Wanted, finish};
use crate::error::Result;
use crate::read::cast::{narrow, widen};
use crate::read::factors::Factor;
use crate::read::inputs::Inputs;
use crate::tensor::{Dtype, LowRank, Tensor};

/// Elements of the product that are held at a time: with the factors they fit the second-level cache.
const BAND: usize = 64 << 10;

/// Columns of a panel.
pub(super) const PANEL: usize = 64;

/// Larger factors, in bytes, are read as far as a reply needs them.
const LARGEST: u64 = 16 << 20;

/// Steps of the product that are taken in one pass over the sums.
const STEPS: usize = 8;

pub(super) fn fill(wanted: &Wanted<'_>, kernel: &LowRank, target: &mut [u8]) -> Result<()> {
    let base = wanted.input(0)?;
    let columns = match kernel.has_magnitude {
        true => 0..base.sides().1,
        false => wanted.columns.clone(),
    };
    let width = (columns.end - columns.start) as usize;
    let (_, rank) = wanted.input(1)?.sides();
    let left = interleaved::floats(wanted.from, wanted.input(1)?, wanted.rows.clone(), 0..rank)?;
    let right = Right::read(wanted.from, wanted.input(2)?, columns.clone())?;
    let lengths = match kernel.has_magnitude {
        true => wanted.floats(3, wanted.rows.clone(), 0..1)?,
        false => Vec::new(),
    };
    let bytes = wanted.fetch(base, wanted.rows.clone(), columns.clone())?;
    let band = (BAND / width.max(1)).max(1);
    // Taken from the system for each band, the memory would cost more than the product.
    let mut memory = wanted.from.memory(size_of::<f32>() * (band * width + 1))?;
    let (_, memory, _) = bytemuck::pod_align_to_mut::<u8, f32>(&mut memory);
    let lefts = left.chunks(band * rank.max(1) as usize);
    let bases = bytes.chunks(band * width * base.unit() as usize);
    let targets = target.chunks_mut(band * wanted.width() * wanted.unit());
    for (number, ((left, base_bytes), target)) in lefts.zip(bases).zip(targets).enumerate() {
        let count = left.len() / rank.max(1) as usize * width;
        let sums = memory.get_mut(..count).unwrap_or_default();
        multiply(left, rank as usize, &right, columns.clone(), sums);
        add(base, base_bytes, kernel, sums);
        if kernel.has_magnitude {
            let lengths = lengths.get(number * band..).unwrap_or_default();
            for (row, length) in sums.chunks_mut(width).zip(lengths) {
                normalise(row, *length);
            }
        }
        let skip = (wanted.columns.start - columns.start) as usize;
        let rows = target.chunks_mut(wanted.width() * wanted.unit());
        for (row, target) in sums.chunks_mut(width.max(1)).zip(rows) {
            let row = row.get_mut(skip..skip + wanted.width()).unwrap_or_default();
            finish(wanted.dtype, row, target);
        }
    }
    Ok(())
}

/// Columns of a right factor in panels: 64 columns of all rows each, the last one filled up with zeros.
struct Right {
    factor: Arc<Factor>,
    /// The first column that it has.
    start: u64,
}

impl Right {
    /// Reads all columns where that is not too much, else those asked for.
    fn read(from: &dyn Inputs, tensor: &Tensor, columns: Range<u64>) -> Result<Self> {
        let (rank, width) = tensor.sides();
        let limit = from.factors().limit().min(LARGEST);
        let read = |columns: Range<u64>| {
            let width = (columns.end - columns.start) as usize;
            Ok(packed(
                &interleaved::floats(from, tensor, 0..rank, columns)?,
                width,
            ))
        };
        if 4 * rank.saturating_mul(width) > limit {
            return Ok(Self {
                start: columns.start,
                factor: Factor::unshared(read(columns)?),
            });
        }
        let factor = from.factors().kept(tensor, 0, || read(0..width))?;
        Ok(Self { factor, start: 0 })
    }

    fn panels(&self, rank: usize) -> impl Iterator<Item = &[[f32; PANEL]]> {
        let (rows, _) = self.factor.values().as_chunks();
        rows.chunks_exact(rank.max(1))
    }
}

/// A matrix panel by panel.
fn packed(matrix: &[f32], width: usize) -> Vec<f32> {
    let width = width.max(1);
    let mut packed = Vec::with_capacity(matrix.len().next_multiple_of(PANEL));
    for start in (0..width).step_by(PANEL) {
        for row in matrix.chunks(width) {
            let part = row.get(start..width.min(start + PANEL)).unwrap_or_default();
            packed.extend_from_slice(part);
            packed.resize(packed.len() + PANEL - part.len(), 0.0);
        }
    }
    packed
}

/// `left @ right` for the columns asked for, whose sums lie row after row.
fn multiply(left: &[f32], rank: usize, right: &Right, columns: Range<u64>, sums: &mut [f32]) {
    let width = (columns.end - columns.start) as usize;
    let first = (columns.start - right.start) as usize;
    for (number, panel) in right.panels(rank).enumerate() {
        let start = (number * PANEL).max(first);
        let end = (number * PANEL + PANEL).min(first + width);
        if start < end {
            let inside = start - number * PANEL..end - number * PANEL;
            multiply_panel(left, rank, panel, inside, sums, width, start - first);
        }
    }
}

/// The sums of some columns of one panel, for all rows.
#[multiversion(targets("x86_64+avx2+fma"))]
pub(super) fn multiply_panel(
    left: &[f32],
    rank: usize,
    panel: &[[f32; PANEL]],
    inside: Range<usize>,
    sums: &mut [f32],
    width: usize,
    to: usize,
) {
    multiply_panel_anywhere(left, rank, panel, inside, sums, width, to);
}

/// Compiled for each instruction set that `multiply_panel` chooses from.
#[inline(always)]
pub(super) fn multiply_panel_anywhere(
    left: &[f32],
    rank: usize,
    panel: &[[f32; PANEL]],
    inside: Range<usize>,
    sums: &mut [f32],
    width: usize,
    to: usize,
) {
    for (left, sums) in left.chunks_exact(rank).zip(sums.chunks_exact_mut(width)) {
        let mut row = [0f32; PANEL];
        let (steps, rest) = left.as_chunks::<STEPS>();
        let (panels, single) = panel.as_chunks::<STEPS>();
        for (b, a) in steps.iter().zip(panels) {
            for j in 0..PANEL {
                let mut sum = row[j];
                for k in 0..STEPS {
                    sum = b[k].mul_add(a[k][j], sum);
                }
                row[j] = sum;
            }
        }
        for (b, a) in rest.iter().zip(single) {
            for j in 0..PANEL {
                row[j] = b.mul_add(a[j], row[j]);
            }
        }
        if let (Some(target), Some(row)) =
            (sums.get_mut(to..to + inside.len()), row.get(inside.clone()))
        {
            target.copy_from_slice(row);
        }
    }
}

/// `base + sum * scale` in the place of each sum.
fn add(base: &Tensor, bytes: &[u8], kernel: &LowRank, sums: &mut [f32]) {
    let mut floats = [0.0; CHUNK];
    let parts = bytes.chunks(CHUNK * base.unit() as usize);
    for (bytes, sums) in parts.zip(sums.chunks_mut(CHUNK)) {
        let floats = floats.get_mut(..sums.len()).unwrap_or_default();
        widen(base.dtype(), bytes, floats);
        for sum in sums.iter_mut() {
            *sum *= kernel.scale;
        }
        if kernel.rounds_update {
            round(base.dtype(), sums);
        }
        for (sum, base) in sums.iter_mut().zip(floats) {
            *sum += *base;
        }
    }
}

fn round(dtype: Dtype, floats: &mut [f32]) {
    let mut bytes = [0; 4 * CHUNK];
    let width = dtype.bytes().unwrap_or(4).min(4) as usize;
    let bytes = bytes.get_mut(..floats.len() * width).unwrap_or_default();
    narrow(dtype, floats, bytes);
    widen(dtype, bytes, floats);
}

/// Brings a row to a length.
fn normalise(row: &mut [f32], length: f32) {
    let squares: f64 = row.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
    let factor = length / squares.sqrt() as f32;
    for x in row {
        *x *= factor;
    }
}
