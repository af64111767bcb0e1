//! Weights as F8_E4M3 with a scale for each block of 128 rows and columns.

use std::ops::Range;
use std::sync::Arc;

use super::wanted::Wanted;
use crate::error::Result;
use crate::read::cast::widen;
use crate::read::factors::Factor;
use crate::read::inputs::Inputs;
use crate::tensor::{BLOCK, Tensor};

/// The largest number of F8_E4M3, and the smallest scale.
const LARGEST: f32 = 448.0;
const SMALLEST_SCALE: f32 = 1e-12;

/// Rows that are read at a time.
const ROWS: usize = 16;

/// The scales of the blocks asked for. A row of blocks is read whole, once.
pub(super) fn fill_scales(wanted: &Wanted<'_>, target: &mut [u8]) -> Result<()> {
    let of = wanted.input(0)?;
    let rows = target.chunks_mut(4 * wanted.width().max(1));
    for (row, target) in wanted.rows.clone().zip(rows) {
        let scales = scales_of_row(wanted.from, of, row)?;
        let columns = wanted.columns.start as usize..wanted.columns.end as usize;
        let scales = scales.values().get(columns).unwrap_or_default();
        for (bytes, scale) in target.as_chunks_mut().0.iter_mut().zip(scales) {
            *bytes = scale.to_le_bytes();
        }
    }
    Ok(())
}

/// The scales of one row of blocks of a matrix.
fn scales_of_row(from: &dyn Inputs, of: &Tensor, row: u64) -> Result<Arc<Factor>> {
    from.factors().kept(of, row, || {
        let (height, width) = of.sides();
        let rows = row * BLOCK..height.min((row + 1) * BLOCK);
        let mut largest = vec![0f32; width.div_ceil(BLOCK) as usize];
        for row in rows.clone().step_by(ROWS) {
            let some = row..rows.end.min(row + ROWS as u64);
            let floats = from.floats(of, some, 0..width)?;
            for row in floats.chunks(width.max(1) as usize) {
                for (block, most) in row.chunks(BLOCK as usize).zip(&mut largest) {
                    *most = block.iter().fold(*most, |most, x| larger(most, x.abs()));
                }
            }
        }
        Ok(largest.into_iter().map(scale).collect())
    })
}

/// The larger of two numbers, NaN if one is.
fn larger(a: f32, b: f32) -> f32 {
    if a > b || a.is_nan() { a } else { b }
}

fn scale(largest: f32) -> f32 {
    larger(largest / LARGEST, SMALLEST_SCALE)
}

pub(super) fn fill(wanted: &Wanted<'_>, target: &mut [u8]) -> Result<()> {
    let of = wanted.input(0)?;
    let bytes = wanted.fetch(of, wanted.rows.clone(), wanted.columns.clone())?;
    let width = wanted.width().max(1);
    let mut floats = vec![0.0; width];
    let mut kept: Option<(u64, Arc<Factor>)> = None;
    let rows = bytes
        .chunks(width * of.unit() as usize)
        .zip(wanted.rows.clone());
    for ((bytes, row), target) in rows.zip(target.chunks_mut(width)) {
        widen(of.dtype(), bytes, &mut floats);
        let block = row / BLOCK;
        let scales = match kept.take() {
            Some((number, scales)) if number == block => scales,
            _ => scales_of_row(wanted.from, of, block)?,
        };
        quantize(&floats, scales.values(), wanted.columns.clone(), target);
        kept = Some((block, scales));
    }
    Ok(())
}

fn quantize(floats: &[f32], scales: &[f32], columns: Range<u64>, target: &mut [u8]) {
    let mut column = columns.start;
    let (mut floats, mut target) = (floats, target);
    while !floats.is_empty() {
        let length = ((BLOCK - column % BLOCK) as usize).min(floats.len());
        let scale = scales.get((column / BLOCK) as usize).copied();
        let (part, behind) = floats.split_at(length);
        let (codes, rest) = target.split_at_mut(length.min(target.len()));
        quantize_run(part, scale.unwrap_or(f32::NAN), codes);
        (floats, target, column) = (behind, rest, column + length as u64);
    }
}

#[multiversion::multiversion(targets("x86_64+avx2+fma"))]
pub(super) fn quantize_run(floats: &[f32], scale: f32, codes: &mut [u8]) {
    quantize_run_anywhere(floats, scale, codes);
}

/// Compiled for each instruction set that `quantize_run` chooses from.
#[inline(always)]
pub(super) fn quantize_run_anywhere(floats: &[f32], scale: f32, codes: &mut [u8]) {
    for (code, x) in codes.iter_mut().zip(floats) {
        *code = to_e4m3((x / scale).clamp(-LARGEST, LARGEST));
    }
}

/// The nearest code of a number of at most 448, ties to even; NaN is NaN.
fn to_e4m3(value: f32) -> u8 {
    /// Added to a number below 2^-6, it leaves the three bits of a subnormal code at the end.
    const SUBNORMAL: u32 = 141 << 23;
    let bits = value.to_bits();
    let sign = (bits >> 24) as u8 & 0x80;
    let magnitude = bits & 0x7fff_ffff;
    let subnormal = (f32::from_bits(magnitude) + f32::from_bits(SUBNORMAL)).to_bits();
    let odd = magnitude >> 20 & 1;
    let normal = magnitude
        .wrapping_sub(120 << 23)
        .wrapping_add(0x7_ffff + odd)
        >> 20;
    let code = match magnitude {
        0x7f80_0001.. => 0x7f,
        _ if magnitude < 121 << 23 => subnormal.wrapping_sub(SUBNORMAL),
        _ => normal,
    };
    code as u8 | sign
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::cast::e4m3;

    #[test]
    fn codes_are_the_nearest_with_ties_to_even() {
        for bits in (0..0x43e0_0000u32).step_by(4099) {
            let value = f32::from_bits(bits);
            let code = to_e4m3(value);
            let distance = |code: u8| (f64::from(e4m3(code)) - f64::from(value)).abs();
            for other in [code.saturating_sub(1), (code + 1).min(0x7e)] {
                let (own, theirs) = (distance(code), distance(other));
                assert!(own < theirs || own == theirs && (code.is_multiple_of(2) || other == code));
            }
        }
        for code in (0..=0x7e).chain(0x80..=0xfe) {
            assert_eq!(to_e4m3(e4m3(code)), code);
        }
        assert_eq!(to_e4m3(f32::NAN), 0x7f);
    }
}
