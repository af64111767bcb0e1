//! Elements as numbers.

use std::fmt::{self, Display, Formatter};

use half::{bf16, f16};
use serde::{Serialize, Serializer};

use crate::read::e4m3;
use crate::tensor::Dtype;

/// Counts of elements that are not finite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct NonFinite {
    pub nan: u64,
    pub infinite: u64,
}

/// A value of an element. JSON has no NaN and no infinity: they are the strings `NaN`, `inf` and `-inf`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Number(pub f64);

impl Display for Number {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.is_finite() {
            true => serializer.serialize_f64(self.0),
            false => serializer.collect_str(self),
        }
    }
}

/// The bit patterns of a float type without its sign bit: infinity, and the largest that is not NaN.
struct Patterns {
    width: usize,
    infinity: Option<u64>,
    largest: u64,
}

impl NonFinite {
    /// Adds the elements in `bytes`. Types without such values add nothing.
    pub fn count(&mut self, dtype: Dtype, bytes: &[u8]) {
        let Some(patterns) = patterns(dtype) else {
            return;
        };
        let sign = 1 << (8 * patterns.width - 1);
        for element in bytes.chunks_exact(patterns.width) {
            let magnitude = unsigned(element) & !sign;
            self.nan += u64::from(magnitude > patterns.largest);
            self.infinite += u64::from(Some(magnitude) == patterns.infinity);
        }
    }
}

fn patterns(dtype: Dtype) -> Option<Patterns> {
    let with_infinity = |width, infinity| Patterns {
        width,
        infinity: Some(infinity),
        largest: infinity,
    };
    match dtype {
        Dtype::BF16 => Some(with_infinity(2, 0x7f80)),
        Dtype::F16 => Some(with_infinity(2, 0x7c00)),
        Dtype::F32 | Dtype::C64 => Some(with_infinity(4, 0x7f80_0000)),
        Dtype::F64 => Some(with_infinity(8, 0x7ff0_0000_0000_0000)),
        Dtype::F8_E5M2 => Some(with_infinity(1, 0x7c)),
        Dtype::F8_E4M3 => Some(Patterns {
            width: 1,
            infinity: None,
            largest: 0x7e,
        }),
        _ => None,
    }
}

/// Whether the elements of a type are numbers that an f64 holds exactly, so that those of two types may be compared.
pub fn is_number(dtype: Dtype) -> bool {
    use Dtype::*;
    let is_float = matches!(dtype, F64 | F32 | F16 | BF16 | F8_E5M2 | F8_E4M3);
    is_float || matches!(dtype, I8 | I16 | I32 | U8 | U16 | U32)
}

/// An element as a number. Types without a usual one, such as the small floats, count as the integers of their bits.
pub fn number(dtype: Dtype, element: &[u8]) -> f64 {
    let bits = unsigned(element);
    match dtype {
        Dtype::BF16 => bf16::from_bits(bits as u16).to_f64(),
        Dtype::F16 => f16::from_bits(bits as u16).to_f64(),
        Dtype::F8_E5M2 => f16::from_bits((bits as u16) << 8).to_f64(),
        Dtype::F8_E4M3 => e4m3(bits as u8).into(),
        Dtype::F32 => f32::from_bits(bits as u32).into(),
        Dtype::F64 => f64::from_bits(bits),
        Dtype::I8 => (bits as i8).into(),
        Dtype::I16 => (bits as i16).into(),
        Dtype::I32 => (bits as i32).into(),
        Dtype::I64 => bits as i64 as f64,
        _ => bits as f64,
    }
}

fn unsigned(element: &[u8]) -> u64 {
    let add = |bits, byte: &u8| bits << 8 | u64::from(*byte);
    element.iter().rev().fold(0, add)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(dtype: Dtype, bytes: &[u8]) -> (u64, u64) {
        let mut count = NonFinite::default();
        count.count(dtype, bytes);
        (count.nan, count.infinite)
    }

    #[test]
    fn not_numbers_and_infinities_of_either_sign_are_counted() {
        let floats = [
            f32::NAN,
            -f32::NAN,
            f32::INFINITY,
            f32::NEG_INFINITY,
            f32::MAX,
            -0.0,
        ];
        let bytes =
            |f: &dyn Fn(f32) -> Vec<u8>| floats.iter().flat_map(|x| f(*x)).collect::<Vec<u8>>();
        assert_eq!(
            counted(Dtype::F32, &bytes(&|x| x.to_le_bytes().into())),
            (2, 2)
        );
        assert_eq!(
            counted(Dtype::F64, &bytes(&|x| f64::from(x).to_le_bytes().into())),
            (2, 2)
        );
        let wide = [f32::NAN, f32::INFINITY, 1e4];
        let bf16s: Vec<u8> = wide
            .iter()
            .flat_map(|x| bf16::from_f32(*x).to_le_bytes())
            .collect();
        let f16s: Vec<u8> = wide
            .iter()
            .flat_map(|x| f16::from_f32(*x).to_le_bytes())
            .collect();
        assert_eq!(counted(Dtype::BF16, &bf16s), (1, 1));
        assert_eq!(counted(Dtype::F16, &f16s), (1, 1));
        assert_eq!(counted(Dtype::F8_E4M3, &[0x7f, 0xff, 0x7e, 0xfe]), (2, 0));
        assert_eq!(counted(Dtype::F8_E5M2, &[0x7f, 0xfc, 0x7b, 0]), (1, 1));
        assert_eq!(counted(Dtype::I32, &[0xff; 8]), (0, 0));
    }

    #[test]
    fn numbers_are_those_that_were_written() {
        assert_eq!(number(Dtype::F32, &1.5f32.to_le_bytes()), 1.5);
        assert_eq!(
            number(Dtype::BF16, &bf16::from_f32(-2.0).to_le_bytes()),
            -2.0
        );
        assert_eq!(number(Dtype::F8_E5M2, &[0x3c]), 1.0);
        assert_eq!(number(Dtype::I8, &[0xff]), -1.0);
        assert_eq!(number(Dtype::U8, &[0xff]), 255.0);
        assert_eq!(number(Dtype::I64, &(-3i64).to_le_bytes()), -3.0);
    }
}
