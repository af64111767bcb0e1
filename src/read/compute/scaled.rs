//! Quantized weights as floats: a number for each code, times the scale of its block.

use std::array::from_fn;

use multiversion::multiversion;

use super::wanted::{CHUNK, Wanted, finish};
use crate::error::Result;
use crate::read::cast::e4m3;
use crate::tensor::{Code, Global, Scaled, Zero};

/// The numbers of FP4 (E2M1) codes; the upper eight are their negatives.
const E2M1: [f32; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];

/// The two numbers of each byte of codes that are half a byte, the low half first.
pub(super) type Pairs = [[f32; 2]; 256];

/// The number of each byte.
pub(super) type Singles = [f32; 256];

pub(super) enum Table {
    Singles(Box<Singles>),
    Pairs(Box<Pairs>),
}

impl Table {
    pub fn of(code: Code) -> Self {
        let single =
            |value: &dyn Fn(u8) -> f32| Self::Singles(Box::new(from_fn(|byte| value(byte as u8))));
        let pair = |value: &dyn Fn(u8) -> f32| {
            let halves = |byte: usize| [value(byte as u8 & 15), value(byte as u8 >> 4)];
            Self::Pairs(Box::new(from_fn(halves)))
        };
        match code {
            Code::E4M3 => single(&e4m3),
            Code::I8 => single(&|byte| f32::from(byte as i8)),
            Code::U8 => single(&|byte| f32::from(byte) - 128.0),
            Code::E2M1 => pair(&e2m1),
            Code::U4 => pair(&|half| f32::from(half) - 8.0),
        }
    }

    /// The numbers of the codes from `start` on, less `zero`, times `scale`.
    fn fill(&self, codes: &[u8], start: usize, zero: f32, scale: f32, target: &mut [f32]) {
        match self {
            Self::Singles(table) => {
                scale_singles(
                    table,
                    codes.get(start..).unwrap_or_default(),
                    zero,
                    scale,
                    target,
                );
            }
            Self::Pairs(table) => scale_pairs(table, codes, start, zero, scale, target),
        }
    }
}

fn e2m1(half: u8) -> f32 {
    let magnitude = E2M1[usize::from(half & 7)];
    match half & 8 {
        0 => magnitude,
        _ => -magnitude,
    }
}

#[multiversion(targets("x86_64+avx2+fma"))]
pub(super) fn scale_singles(
    table: &Singles,
    codes: &[u8],
    zero: f32,
    scale: f32,
    target: &mut [f32],
) {
    scale_singles_anywhere(table, codes, zero, scale, target);
}

/// Compiled for each instruction set that `scale_singles` chooses from.
#[inline(always)]
pub(super) fn scale_singles_anywhere(
    table: &Singles,
    codes: &[u8],
    zero: f32,
    scale: f32,
    target: &mut [f32],
) {
    if zero == 0.0 {
        for (value, code) in target.iter_mut().zip(codes) {
            *value = table[usize::from(*code)] * scale;
        }
    } else {
        for (value, code) in target.iter_mut().zip(codes) {
            *value = (table[usize::from(*code)] - zero) * scale;
        }
    }
}

#[multiversion(targets("x86_64+avx2+fma"))]
pub(super) fn scale_pairs(
    table: &Pairs,
    codes: &[u8],
    start: usize,
    zero: f32,
    scale: f32,
    target: &mut [f32],
) {
    scale_pairs_anywhere(table, codes, start, zero, scale, target);
}

/// Compiled for each instruction set that `scale_pairs` chooses from.
#[inline(always)]
pub(super) fn scale_pairs_anywhere(
    table: &Pairs,
    codes: &[u8],
    start: usize,
    zero: f32,
    scale: f32,
    target: &mut [f32],
) {
    let value = |pair: f32| match zero == 0.0 {
        true => pair * scale,
        false => (pair - zero) * scale,
    };
    let codes = codes.get(start / 2..).unwrap_or_default();
    let odd = start % 2;
    let (first, target) = target.split_at_mut(odd.min(target.len()));
    if let ([first], Some(code)) = (first, codes.first()) {
        *first = value(table[usize::from(*code)][1]);
    }
    let codes = codes.get(odd..).unwrap_or_default();
    let (pairs, last) = target.as_chunks_mut::<2>();
    for (pair, code) in pairs.iter_mut().zip(codes) {
        let [low, high] = table[usize::from(*code)];
        *pair = [value(low), value(high)];
    }
    let behind = codes.get(pairs.len());
    if let ([last], Some(code)) = (last, behind) {
        *last = value(table[usize::from(*code)][0]);
    }
}

pub(super) fn fill(wanted: &Wanted<'_>, kernel: &Scaled, target: &mut [u8]) -> Result<()> {
    let codes = wanted.input(0)?;
    let per_element = kernel.code.per_element(codes.dtype());
    let first = wanted.columns.start / per_element;
    let last = wanted.columns.end.div_ceil(per_element);
    let bytes = wanted.fetch(codes, wanted.rows.clone(), first..last)?;
    let scales = Scales::read(wanted, kernel)?;
    let table = Table::of(kernel.code);
    let skip = (wanted.columns.start - first * per_element) as usize;
    let pitch = ((last - first) * codes.unit()) as usize;
    let mut floats = [0.0; CHUNK];
    let rows = bytes.chunks(pitch.max(1)).zip(wanted.rows.clone());
    let targets = target.chunks_mut(wanted.width() * wanted.unit());
    for ((codes, row), target) in rows.zip(targets) {
        for (number, target) in target.chunks_mut(CHUNK * wanted.unit()).enumerate() {
            let floats = floats
                .get_mut(..target.len() / wanted.unit())
                .unwrap_or_default();
            let start = number * CHUNK;
            let column = wanted.columns.start + start as u64;
            scales.each_run(row, column, floats, &mut |done, zero, scale, part| {
                table.fill(codes, skip + start + done, zero, scale, part);
            });
            finish(wanted.dtype, floats, target);
        }
    }
    Ok(())
}

/// Takes how many elements of a row are done, a zero point, a scale, and the place of the elements that have them.
type Fill<'f> = &'f mut dyn FnMut(usize, f32, f32, &mut [f32]);

/// The scales, and the zero points where there are any, of the blocks that a box touches.
struct Scales {
    block: [u64; 2],
    /// Row and column of the first block.
    first: [u64; 2],
    /// Blocks side by side.
    width: u64,
    scales: Vec<f32>,
    zeros: Vec<f32>,
}

impl Scales {
    fn read(wanted: &Wanted<'_>, kernel: &Scaled) -> Result<Self> {
        let [height, width] = kernel.block;
        let rows = wanted.rows.start / height..wanted.rows.end.div_ceil(height);
        let columns = wanted.columns.start / width..wanted.columns.end.div_ceil(width);
        let mut scales = wanted.floats(1, rows.clone(), columns.clone())?;
        let mut next = 2;
        if kernel.global != Global::None {
            let global = wanted.floats(next, 0..1, 0..1)?;
            let global = global.first().copied().unwrap_or(f32::NAN);
            for scale in &mut scales {
                *scale = match kernel.global {
                    Global::Over => *scale / global,
                    _ => *scale * global,
                };
            }
            next += 1;
        }
        let zeros = match kernel.zero {
            None => Vec::new(),
            Some(zero) => {
                let per_element = zero.per_element();
                let stored = rows.start / per_element..rows.end.div_ceil(per_element);
                let input = wanted.input(next)?;
                let bytes = wanted.fetch(input, stored.clone(), columns.clone())?;
                let width = (columns.end - columns.start) as usize;
                let skip = rows.start - stored.start * per_element;
                unpacked(zero, &bytes, width, skip, rows.end - rows.start)
            }
        };
        Ok(Self {
            block: kernel.block,
            first: [rows.start, columns.start],
            width: columns.end - columns.start,
            scales,
            zeros,
        })
    }

    /// Calls `fill` for each part of a row that lies in one block.
    fn each_run(&self, row: u64, column: u64, mut rest: &mut [f32], fill: Fill<'_>) {
        let [height, width] = self.block;
        let line = (row / height - self.first[0]) * self.width;
        let mut done = 0;
        while !rest.is_empty() {
            let at = column + done as u64;
            let length = (width - at % width).min(rest.len() as u64) as usize;
            let number = (line + at / width - self.first[1]) as usize;
            let scale = self.scales.get(number).copied().unwrap_or(f32::NAN);
            let zero = self.zeros.get(number).copied().unwrap_or(0.0);
            let (part, behind) = rest.split_at_mut(length);
            fill(done, zero, scale, part);
            (rest, done) = (behind, done + length);
        }
    }
}

/// Zero points of `count` rows of blocks from row `skip` on.
fn unpacked(zero: Zero, bytes: &[u8], width: usize, skip: u64, count: u64) -> Vec<f32> {
    let bits = match zero {
        Zero::I8 => {
            return bytes.iter().map(|byte| f32::from(*byte as i8)).collect();
        }
        Zero::U4 => 4,
        Zero::U8 => 8,
    };
    let (words, _) = bytes.as_chunks::<4>();
    let offset = (1u32 << (bits - 1)) as f32;
    let value = |row: u64, column: usize| {
        let word = words.get((row / zero.per_element()) as usize * width + column);
        let word = word.map_or(0, |word| u32::from_le_bytes(*word));
        let shifted = word >> (bits * (row % zero.per_element()) as u32);
        (shifted & ((1 << bits) - 1)) as f32 - offset
    };
    let rows = skip..skip + count;
    rows.flat_map(|row| (0..width).map(move |column| (row, column)))
        .map(|(row, column)| value(row, column))
        .collect()
}
