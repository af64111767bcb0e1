//! Float casts, rounded as torch's `.to()` rounds: to nearest, ties to even, overflow to infinity, subnormals kept.

use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::tensor::Dtype;

/// Elements converted at a time, so that both sides stay in the first-level cache.
const BLOCK: usize = 1024;

/// Converts little-endian elements of `source` to little-endian elements of `target`. Both hold whole elements, equally many.
pub(super) fn cast(from: Dtype, source: &[u8], to: Dtype, target: &mut [u8]) {
    let (Some(width), Some(out_width)) = (from.bytes(), to.bytes()) else {
        return;
    };
    let mut floats = [0f32; BLOCK];
    let blocks = source.chunks(BLOCK * width as usize);
    for (source, target) in blocks.zip(target.chunks_mut(BLOCK * out_width as usize)) {
        let floats = &mut floats[..source.len() / width as usize];
        widen(from, source, floats);
        narrow(to, floats, target);
    }
}

/// Little-endian elements of `source` as f32. A byte without a float type of its own is an exponent (F8_E8M0).
pub(super) fn widen(from: Dtype, source: &[u8], floats: &mut [f32]) {
    match from {
        Dtype::BF16 => {
            for (float, bytes) in floats.iter_mut().zip(source.as_chunks().0) {
                *float = f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16);
            }
        }
        Dtype::F16 => {
            let mut halves = [f16::ZERO; BLOCK];
            let (bytes, _) = source.as_chunks();
            for (floats, bytes) in floats.chunks_mut(BLOCK).zip(bytes.chunks(BLOCK)) {
                let halves = &mut halves[..floats.len()];
                for (half, bytes) in halves.iter_mut().zip(bytes) {
                    *half = f16::from_le_bytes(*bytes);
                }
                halves.convert_to_f32_slice(floats);
            }
        }
        // torch too goes through f32 to the 16-bit types, and so rounds twice.
        Dtype::F64 => {
            for (float, bytes) in floats.iter_mut().zip(source.as_chunks().0) {
                *float = f64::from_le_bytes(*bytes) as f32;
            }
        }
        Dtype::F8_E4M3 => {
            for (float, byte) in floats.iter_mut().zip(source) {
                *float = e4m3(*byte);
            }
        }
        Dtype::F8_E8M0 | Dtype::U8 => {
            for (float, byte) in floats.iter_mut().zip(source) {
                *float = e8m0(*byte);
            }
        }
        _ => {
            for (float, bytes) in floats.iter_mut().zip(source.as_chunks().0) {
                *float = f32::from_le_bytes(*bytes);
            }
        }
    }
}

/// A number of F8_E4M3 (no infinity, one NaN of each sign).
pub fn e4m3(byte: u8) -> f32 {
    let (exponent, mantissa) = (byte >> 3 & 15, f32::from(byte & 7));
    let magnitude = match (exponent, byte & 7) {
        (15, 7) => f32::NAN,
        (0, _) => mantissa * 2f32.powi(-9),
        _ => (8.0 + mantissa) * 2f32.powi(i32::from(exponent) - 10),
    };
    match byte & 0x80 {
        0 => magnitude,
        _ => -magnitude,
    }
}

/// A power of two (F8_E8M0): 2^(byte - 127), the last a NaN.
pub(super) fn e8m0(byte: u8) -> f32 {
    match byte {
        0 => f32::from_bits(0x0040_0000),
        255 => f32::NAN,
        _ => f32::from_bits(u32::from(byte) << 23),
    }
}

/// Floats as little-endian elements of a type that a cast may give.
pub(super) fn narrow(to: Dtype, floats: &[f32], target: &mut [u8]) {
    match to {
        Dtype::BF16 => {
            for (bytes, float) in target.as_chunks_mut().0.iter_mut().zip(floats) {
                *bytes = to_bf16(*float).to_le_bytes();
            }
        }
        Dtype::F16 => {
            let mut halves = [f16::ZERO; BLOCK];
            let (target, _) = target.as_chunks_mut();
            for (floats, target) in floats.chunks(BLOCK).zip(target.chunks_mut(BLOCK)) {
                let halves = &mut halves[..floats.len()];
                halves.convert_from_f32_slice(floats);
                for (bytes, half) in target.iter_mut().zip(halves) {
                    *bytes = half.to_le_bytes();
                }
            }
        }
        _ => {
            for (bytes, float) in target.as_chunks_mut().0.iter_mut().zip(floats) {
                *bytes = float.to_le_bytes();
            }
        }
    }
}

/// Branch-free, so that the compiler vectorises it.
fn to_bf16(float: f32) -> u16 {
    let bits = float.to_bits();
    let rounded = bits.wrapping_add(0x7FFF + ((bits >> 16) & 1)) >> 16;
    if float.is_nan() { NAN } else { rounded as u16 }
}

/// Every NaN becomes this one in torch's vectorised f32 to bf16 conversion (2.13, AVX2 and AVX-512).
const NAN: u16 = 0xFFFF;

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;

    #[test]
    fn bf16_rounds_to_nearest_even_like_half() {
        for bits in (0..u32::MAX).step_by(9973) {
            let float = f32::from_bits(bits);
            if !float.is_nan() {
                assert_eq!(to_bf16(float), bf16::from_f32(float).to_bits(), "{bits:#x}");
            }
        }
        assert_eq!(to_bf16(3.4e38), bf16::INFINITY.to_bits());
        assert_eq!(to_bf16(1.003_906_2), bf16::ONE.to_bits());
    }

    #[test]
    fn eight_bit_floats_are_those_of_the_half_crate_where_both_have_them() {
        // E4M3 is a half float with one exponent bit and seven mantissa bits fewer.
        for byte in 0..=255u8 {
            let bits = (u16::from(byte) & 0x80) << 8 | (u16::from(byte) & 0x7f) << 7;
            let expected = f16::from_bits(bits).to_f32() * 256.0;
            match byte & 0x7f {
                0x7f => assert!(e4m3(byte).is_nan()),
                _ => assert_eq!(e4m3(byte).to_bits(), expected.to_bits(), "{byte:#x}"),
            }
        }
    }

    #[test]
    fn powers_of_two_begin_below_the_normal_numbers() {
        assert_eq!(e8m0(0), 2f32.powi(-127));
        assert_eq!(e8m0(1), f32::MIN_POSITIVE);
        assert_eq!(e8m0(127), 1.0);
        assert_eq!(e8m0(254), 2f32.powi(127));
        assert!(e8m0(255).is_nan());
    }
}
