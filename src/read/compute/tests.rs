//! The kernels against the loops of their formulas, over tensors in files, for any part of the result.

use std::fs;

use half::{bf16, f16};
use proptest::prelude::*;

use super::blocks_of_fp8::{quantize_run, quantize_run_anywhere};
use super::combine::{add_product, add_product_anywhere};
use super::low_rank::{PANEL, multiply_panel, multiply_panel_anywhere};
use super::scaled::{
    Table, scale_pairs, scale_pairs_anywhere, scale_singles, scale_singles_anywhere,
};
use crate::read::Reader;
use crate::read::cast::{e4m3, e8m0};
use crate::source::SourceFile;
use crate::tensor::{
    BLOCK, Code, Dtype, Global, Kernel, LowRank, Scaled, Shape, Tensor, Zero, contiguous,
};

/// Random bytes, the same for the same seed.
fn random(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    (0..count).map(|_| next()).collect()
}

/// Floats of about one, and one in two hundred that is NaN, infinite or tiny.
fn numbers(seed: u64, count: usize) -> Vec<f32> {
    let bytes = random(seed, 4 * count);
    let number = |bytes: &[u8]| match bytes[3] {
        0 => [f32::NAN, f32::INFINITY, -0.0, 1e-40][usize::from(bytes[0] % 4)],
        _ => (f32::from(bytes[0]) * 256.0 + f32::from(bytes[1]) - 32000.0) / 16000.0,
    };
    bytes.chunks(4).map(number).collect()
}

fn encoded(dtype: Dtype, floats: &[f32]) -> Vec<u8> {
    let encode = |float: &f32| match dtype {
        Dtype::BF16 if float.is_nan() => vec![0xff; 2],
        Dtype::BF16 => bf16::from_f32(*float).to_le_bytes().to_vec(),
        Dtype::F16 if float.is_nan() => f16::from_f32(f32::NAN).to_le_bytes().to_vec(),
        Dtype::F16 => f16::from_f32(*float).to_le_bytes().to_vec(),
        _ if float.is_nan() => f32::NAN.to_le_bytes().to_vec(),
        _ => float.to_le_bytes().to_vec(),
    };
    floats.iter().flat_map(encode).collect()
}

fn decoded(dtype: Dtype, bytes: &[u8]) -> Vec<f32> {
    let decode = |bytes: &[u8]| match dtype {
        Dtype::BF16 => bf16::from_le_bytes([bytes[0], bytes[1]]).to_f32(),
        Dtype::F16 => f16::from_le_bytes([bytes[0], bytes[1]]).to_f32(),
        _ => f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
    };
    bytes
        .chunks(dtype.bytes().unwrap() as usize)
        .map(decode)
        .collect()
}

fn rounded(dtype: Dtype, float: f32) -> f32 {
    decoded(dtype, &encoded(dtype, &[float]))[0]
}

fn stored(dtype: Dtype, dims: &[u64], bytes: &[u8]) -> Tensor {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), bytes).unwrap();
    let file = SourceFile::open(&file.path().canonicalize().unwrap()).unwrap();
    let shape = Shape::new(dims).unwrap();
    let strides = contiguous(0, &shape);
    Tensor::stored(file, dtype, shape, strides).unwrap()
}

/// A stored matrix of random numbers, and the numbers.
fn matrix(seed: u64, dtype: Dtype, dims: [u64; 2]) -> (Tensor, Vec<f32>) {
    let floats = numbers(seed, (dims[0] * dims[1]) as usize);
    let bytes = encoded(dtype, &floats);
    (stored(dtype, &dims, &bytes), decoded(dtype, &bytes))
}

/// Holds that every part of the tensor, and of the transposed one, is that of `expected`.
fn check(tensor: &Tensor, expected: &[u8], seed: u64) {
    let mut whole = vec![0; expected.len()];
    Reader::default()
        .read_tensor_at(tensor, 0, &mut whole)
        .unwrap();
    assert!(whole == expected, "{:?}", tensor.operations());
    let spots = random(seed, 60);
    for spot in spots.chunks(6) {
        let number = |bytes: &[u8]| {
            usize::from(bytes[0]) << 16 | usize::from(bytes[1]) << 8 | usize::from(bytes[2])
        };
        let start = number(&spot[..3]) % expected.len();
        let end = start + 1 + number(&spot[3..]) % (expected.len() - start);
        let mut part = vec![0; end - start];
        Reader::default()
            .read_tensor_at(tensor, start as u64, &mut part)
            .unwrap();
        assert!(part == expected[start..end], "{start}..{end}");
    }
    let (rows, columns) = tensor.sides();
    let (rows, columns, unit) = (rows as usize, columns as usize, tensor.unit() as usize);
    let mut turned = vec![0; expected.len()];
    Reader::default()
        .read_tensor_at(&tensor.transpose().unwrap(), 0, &mut turned)
        .unwrap();
    for (at, element) in turned.chunks(unit).enumerate() {
        let from = (at % rows * columns + at / rows) * unit;
        assert_eq!(element, &expected[from..from + unit]);
    }
}

fn float() -> impl Strategy<Value = Dtype> {
    prop::sample::select(vec![Dtype::BF16, Dtype::F16, Dtype::F32])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_low_rank_update_is_its_chain_of_fused_products(
        seed in any::<u64>(), dtype in float(), rows in 1u64..20, columns in 1u64..200,
        rank in 1u64..258, rounds_update: bool, has_magnitude: bool,
    ) {
        let (base, w) = matrix(seed, dtype, [rows, columns]);
        let (left, b) = matrix(seed ^ 1, Dtype::BF16, [rows, rank]);
        let (right, a) = matrix(seed ^ 2, Dtype::F32, [rank, columns]);
        let (magnitude, m) = matrix(seed ^ 3, Dtype::F32, [rows, 1]);
        let scale = 10.0 / 6.0;
        let mut inputs = vec![base, left, right];
        inputs.extend(has_magnitude.then_some(magnitude));
        let kernel = Kernel::LowRank(LowRank { scale, rounds_update, has_magnitude });
        let tensor = Tensor::computed(kernel, dtype, &[rows, columns], &inputs).unwrap();
        let (rows, columns, rank) = (rows as usize, columns as usize, rank as usize);
        let mut expected = Vec::new();
        for i in 0..rows {
            let mut row: Vec<f32> = (0..columns).map(|j| {
                let product = (0..rank).fold(0f32, |dot, k| {
                    b[i * rank + k].mul_add(a[k * columns + j], dot)
                });
                let update = product * scale;
                let update = if rounds_update { rounded(dtype, update) } else { update };
                w[i * columns + j] + update
            }).collect();
            if has_magnitude {
                let squares: f64 = row.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
                let factor = m[i] / squares.sqrt() as f32;
                row.iter_mut().for_each(|x| *x *= factor);
            }
            expected.extend(encoded(dtype, &row));
        }
        check(&tensor, &expected, seed);
    }

    #[test]
    fn each_expert_is_updated_by_its_part_of_the_factors_that_all_share(
        seed in any::<u64>(), experts in 1u64..6, rank in 1u64..5, rows in 1u64..20, columns in 1u64..70, is_swapped: bool,
    ) {
        let (shared, b) = matrix(seed, Dtype::F32, [rows, rank * experts]);
        let (right, a) = matrix(seed ^ 1, Dtype::BF16, [rank, columns]);
        let lefts = shared.reshape(&[rows, rank, experts]).unwrap().permute(&[2, 0, 1]).unwrap();
        for expert in 0..experts {
            let left = lefts.narrow(0, expert, 1).unwrap().reshape(&[rows, rank]).unwrap();
            let dims = if is_swapped { [columns, rows] } else { [rows, columns] };
            let (base, w) = matrix(seed ^ 2, Dtype::BF16, dims);
            let inputs = match is_swapped {
                true => vec![base, right.transpose().unwrap(), left.transpose().unwrap()],
                false => vec![base, left, right.clone()],
            };
            let kernel = Kernel::LowRank(LowRank { scale: 0.5, rounds_update: false, has_magnitude: false });
            let tensor = Tensor::computed(kernel, Dtype::BF16, &dims, &inputs).unwrap();
            let element = |at: u64| {
                let (i, j) = (at / dims[1], at % dims[1]);
                let (row, column) = if is_swapped { (j, i) } else { (i, j) };
                let dot = (0..rank).fold(0f32, |dot, k| {
                    let b = b[((row * rank + k) * experts + expert) as usize];
                    let a = a[(k * columns + column) as usize];
                    if is_swapped { a.mul_add(b, dot) } else { b.mul_add(a, dot) }
                });
                w[at as usize] + dot * 0.5
            };
            let expected: Vec<f32> = (0..rows * columns).map(element).collect();
            check(&tensor, &encoded(Dtype::BF16, &expected), seed);
        }
    }

    #[test]
    fn a_combination_is_its_chain_of_fused_products_and_a_delta_its_steps(
        seed in any::<u64>(), dtype in float(), rows in 1u64..9, columns in 1u64..3000,
        weights in prop::collection::vec(-2f32..2.0, 1..5),
    ) {
        let of = |number| matrix(seed.wrapping_add(number), dtype, [rows, columns]);
        let (tensors, values): (Vec<_>, Vec<_>) = (0..=weights.len() as u64).map(of).unzip();
        let divisor = 0.7;
        let kernel = Kernel::Combine { weights: weights.clone().into(), divisor };
        let dims = [rows, columns];
        let combined = Tensor::computed(kernel, dtype, &dims, &tensors[1..]).unwrap();
        let count = (rows * columns) as usize;
        let expected: Vec<f32> = (0..count).map(|at| {
            let sum = values[1..].iter().zip(&weights);
            sum.fold(0f32, |sum, (x, w)| x[at].mul_add(*w, sum)) / divisor
        }).collect();
        check(&combined, &encoded(dtype, &expected), seed);
        let kernel = Kernel::Deltas { weights: weights.clone().into() };
        let deltas = Tensor::computed(kernel, dtype, &dims, &tensors).unwrap();
        let expected: Vec<f32> = (0..count).map(|at| {
            let base = values[0][at];
            let delta = |(x, w): (&Vec<f32>, &f32)| (x[at] - base) * w;
            let sum = values[1..].iter().zip(&weights).map(delta).reduce(|a, b| a + b);
            base + sum.unwrap()
        }).collect();
        check(&deltas, &encoded(dtype, &expected), seed);
    }

    #[test]
    fn a_quantized_weight_is_its_code_times_the_scale_of_its_block(
        seed in any::<u64>(), dtype in float(), rows in 1u64..40, columns in 1u64..300,
        height in 1u64..50, width in 1u64..150, kind in 0usize..7,
    ) {
        let (code, stored_as) = [
            (Code::E4M3, Dtype::F8_E4M3), (Code::I8, Dtype::I8), (Code::E2M1, Dtype::U8),
            (Code::U4, Dtype::I32), (Code::U8, Dtype::I32), (Code::U4, Dtype::I32), (Code::I8, Dtype::I8),
        ][kind];
        let per_element = code.per_element(stored_as);
        let columns = if code == Code::E2M1 { columns * 2 } else { columns };
        let pitch = columns.div_ceil(per_element);
        let bytes = random(seed, (rows * pitch * stored_as.bytes().unwrap()) as usize);
        let codes = stored(stored_as, &[rows, pitch], &bytes);
        let blocks = [rows.div_ceil(height), columns.div_ceil(width)];
        let (scales, s) = matrix(seed ^ 1, Dtype::F32, blocks);
        let mut inputs = vec![codes, scales];
        let zero = match kind { 5 => Some(Zero::U4), 6 => Some(Zero::I8), _ => None };
        let global = if kind == 2 { Global::Over } else { Global::None };
        if global == Global::Over {
            inputs.push(stored(Dtype::F32, &[1, 1], &3f32.to_le_bytes()));
        }
        let zeros = random(seed ^ 2, 4 * (blocks[0] * blocks[1]) as usize);
        match zero {
            Some(Zero::I8) => inputs.push(stored(Dtype::I8, &blocks, &zeros[..(blocks[0] * blocks[1]) as usize])),
            Some(_) => {
                let words = [blocks[0].div_ceil(8), blocks[1]];
                inputs.push(stored(Dtype::I32, &words, &zeros[..(4 * words[0] * words[1]) as usize]));
            }
            None => {}
        }
        let kernel = Kernel::Scaled(Scaled { code, block: [height, width], global, zero });
        let tensor = Tensor::computed(kernel, dtype, &[rows, columns], &inputs).unwrap();
        let line = (pitch * stored_as.bytes().unwrap()) as usize;
        let half = |byte: u8, number: usize| byte >> (4 * (number % 2)) & 15;
        let mut expected = Vec::new();
        for i in 0..rows as usize {
            for j in 0..columns as usize {
                let row = &bytes[i * line..(i + 1) * line];
                let value = match code {
                    Code::E4M3 => e4m3(row[j]),
                    Code::I8 => f32::from(row[j] as i8),
                    Code::U8 => f32::from(row[j]) - 128.0,
                    Code::U4 => f32::from(half(row[j / 2], j)) - 8.0,
                    Code::E2M1 => {
                        let values = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
                        let bits = half(row[j / 2], j);
                        values[usize::from(bits & 7)] * if bits & 8 == 0 { 1.0 } else { -1.0 }
                    }
                };
                let block = (i / height as usize, j / width as usize);
                let number = block.0 * blocks[1] as usize + block.1;
                let zero = match zero {
                    None => 0.0,
                    Some(Zero::I8) => f32::from(zeros[number] as i8),
                    Some(_) => {
                        let word = 4 * (block.0 / 8 * blocks[1] as usize + block.1);
                        f32::from(half(zeros[word + block.0 % 8 / 2], block.0)) - 8.0
                    }
                };
                let scale = if global == Global::Over { s[number] / 3.0 } else { s[number] };
                expected.push((value - zero) * scale);
            }
        }
        check(&tensor, &encoded(dtype, &expected), seed);
    }

    #[test]
    fn blocks_of_fp8_have_their_largest_magnitude_as_scale(
        seed in any::<u64>(), dtype in float(), rows in 1u64..300, columns in 1u64..300,
    ) {
        let (tensor, x) = matrix(seed, dtype, [rows, columns]);
        let blocks = [rows.div_ceil(BLOCK), columns.div_ceil(BLOCK)];
        let scales = Tensor::computed(Kernel::BlockScales, Dtype::F32, &blocks, std::slice::from_ref(&tensor)).unwrap();
        let codes = Tensor::computed(Kernel::BlockFp8, Dtype::F8_E4M3, &[rows, columns], &[tensor, scales.clone()]).unwrap();
        let mut largest = vec![0f32; (blocks[0] * blocks[1]) as usize];
        let number = |at: usize| {
            let (row, column) = (at as u64 / columns, at as u64 % columns);
            (row / BLOCK * blocks[1] + column / BLOCK) as usize
        };
        for (at, x) in x.iter().enumerate() {
            let most = &mut largest[number(at)];
            *most = if x.is_nan() || most.is_nan() { f32::NAN } else { most.max(x.abs()) };
        }
        let expected: Vec<f32> = largest.iter().map(|most| match most.is_nan() {
            true => f32::NAN,
            false => (most / 448.0).max(1e-12),
        }).collect();
        let mut found = vec![0; 4 * expected.len()];
        Reader::default().read_tensor_at(&scales, 0, &mut found).unwrap();
        let found: Vec<f32> = decoded(Dtype::F32, &found);
        for (found, expected) in found.iter().zip(&expected) {
            prop_assert!(found == expected || found.is_nan() && expected.is_nan());
        }
        let mut bytes = vec![0; x.len()];
        Reader::default().read_tensor_at(&codes, 0, &mut bytes).unwrap();
        for (at, (byte, x)) in bytes.iter().zip(&x).enumerate() {
            let wanted = x / expected[number(at)];
            let found = e4m3(*byte);
            if wanted.is_nan() {
                prop_assert!(found.is_nan());
            } else {
                let nearest = (0..=0x7e).chain(0x80..=0xfe).map(|code| (e4m3(code) - wanted).abs());
                prop_assert_eq!((found - wanted).abs(), nearest.fold(f32::INFINITY, f32::min));
            }
        }
    }
}

#[test]
fn a_source_that_changed_is_not_served_from_a_kept_factor() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().canonicalize().unwrap().join("right");
    fs::write(
        &path,
        numbers(1, 64)
            .iter()
            .flat_map(|x| x.to_le_bytes())
            .collect::<Vec<_>>(),
    )
    .unwrap();
    let file = SourceFile::open(&path).unwrap();
    let shape = Shape::new(&[1, 64]).unwrap();
    let strides = contiguous(0, &shape);
    let right = Tensor::stored(file, Dtype::F32, shape, strides).unwrap();
    let (base, _) = matrix(2, Dtype::F32, [2, 64]);
    let (left, _) = matrix(3, Dtype::F32, [2, 1]);
    let kernel = Kernel::LowRank(LowRank {
        scale: 1.0,
        rounds_update: false,
        has_magnitude: false,
    });
    let tensor = Tensor::computed(kernel, Dtype::F32, &[2, 64], &[base, left, right]).unwrap();
    let mut bytes = vec![0; 512];
    Reader::default()
        .read_tensor_at(&tensor, 0, &mut bytes)
        .unwrap();
    fs::write(&path, [0; 300]).unwrap();
    let error = Reader::default()
        .read_tensor_at(&tensor, 0, &mut bytes)
        .unwrap_err();
    assert_eq!(error.errno(), libc::EIO);
}

#[test]
fn powers_of_two_and_scales_of_eight_bits_are_read_as_floats() {
    let (codes, _) = ((0..=255).collect::<Vec<u8>>(), ());
    let exponents = stored(Dtype::F8_E8M0, &[1, 256], &codes);
    let kernel = Kernel::Scaled(Scaled {
        code: Code::E4M3,
        block: [1, 1],
        global: Global::None,
        zero: None,
    });
    let ones = stored(Dtype::F8_E4M3, &[1, 256], &[0x38; 256]);
    let tensor = Tensor::computed(kernel, Dtype::F32, &[1, 256], &[ones, exponents]).unwrap();
    let expected: Vec<f32> = codes.iter().map(|code| e8m0(*code)).collect();
    check(&tensor, &encoded(Dtype::F32, &expected), 1);
}

/// Floats that two instruction sets gave. NaN is equal to NaN: which one arithmetic gives differs between processors, and
/// results are made one NaN later.
fn assert_same([chosen, plain]: [Vec<f32>; 2]) {
    let is_same = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
    assert!(chosen.iter().zip(&plain).all(is_same));
}

#[test]
fn a_product_is_the_same_with_every_instruction_set() {
    for rank in (1..258).step_by(4) {
        let (left, width) = (numbers(rank as u64, 7 * rank), 70);
        let panel = numbers(rank as u64 + 1, PANEL * rank);
        let (panel, _) = panel.as_chunks();
        let inside = rank % 9..PANEL - rank % 5;
        let mut sums = [(); 2].map(|()| vec![0.5; 7 * width]);
        let [chosen, plain] = &mut sums;
        multiply_panel(&left, rank, panel, inside.clone(), chosen, width, 3);
        multiply_panel_anywhere(&left, rank, panel, inside, plain, width, 3);
        assert_same(sums);
    }
}

#[test]
fn a_sum_is_the_same_with_every_instruction_set() {
    for length in 0..100 {
        let input = numbers(length as u64, length);
        let mut sums = [(); 2].map(|()| numbers(7, length));
        add_product(&input, 0.3, &mut sums[0]);
        add_product_anywhere(&input, 0.3, &mut sums[1]);
        assert_same(sums);
    }
}

#[test]
fn codes_are_the_same_with_every_instruction_set() {
    for length in 0..300 {
        let floats = numbers(length as u64, length);
        let mut codes = [(); 2].map(|()| vec![0; length]);
        quantize_run(&floats, 0.004, &mut codes[0]);
        quantize_run_anywhere(&floats, 0.004, &mut codes[1]);
        assert_eq!(codes[0], codes[1]);
    }
}

#[test]
fn numbers_of_codes_are_the_same_with_every_instruction_set() {
    let codes: Vec<u8> = (0..=255).collect();
    for code in [Code::E4M3, Code::I8, Code::U8, Code::E2M1, Code::U4] {
        for (length, zero) in (0..200).zip([0.0, -3.0].into_iter().cycle()) {
            let start = length % 7;
            let mut floats = [(); 2].map(|()| vec![0.0; length]);
            let [chosen, plain] = &mut floats;
            match Table::of(code) {
                Table::Singles(table) => {
                    scale_singles(&table, &codes[start..], zero, 0.3, chosen);
                    scale_singles_anywhere(&table, &codes[start..], zero, 0.3, plain);
                }
                Table::Pairs(table) => {
                    scale_pairs(&table, &codes, start, zero, 0.3, chosen);
                    scale_pairs_anywhere(&table, &codes, start, zero, 0.3, plain);
                }
            }
            assert_same(floats);
        }
    }
}
