//! Element types, under their names in safetensors and in torch.

use std::fmt;

/// The element types of safetensors 0.8 (`tensor.rs`), in that crate's order: files hold wider, later types first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(non_camel_case_types)]
pub enum Dtype {
    Bool,
    F4,
    F6_E2M3,
    F6_E3M2,
    U8,
    I8,
    F8_E5M2,
    F8_E4M3,
    F8_E8M0,
    F8_E4M3FNUZ,
    F8_E5M2FNUZ,
    I16,
    U16,
    F16,
    BF16,
    I32,
    U32,
    F32,
    C64,
    F64,
    I64,
    U64,
}

/// (type, name in safetensors, name in torch, bits). torch packs two F4 in one element, so F4 has no torch name here.
const TABLE: [(Dtype, &str, &str, u64); 22] = [
    (Dtype::Bool, "BOOL", "bool", 8),
    (Dtype::F4, "F4", "", 4),
    (Dtype::F6_E2M3, "F6_E2M3", "", 6),
    (Dtype::F6_E3M2, "F6_E3M2", "", 6),
    (Dtype::U8, "U8", "uint8", 8),
    (Dtype::I8, "I8", "int8", 8),
    (Dtype::F8_E5M2, "F8_E5M2", "float8_e5m2", 8),
    (Dtype::F8_E4M3, "F8_E4M3", "float8_e4m3fn", 8),
    (Dtype::F8_E8M0, "F8_E8M0", "float8_e8m0fnu", 8),
    (Dtype::F8_E4M3FNUZ, "F8_E4M3FNUZ", "float8_e4m3fnuz", 8),
    (Dtype::F8_E5M2FNUZ, "F8_E5M2FNUZ", "float8_e5m2fnuz", 8),
    (Dtype::I16, "I16", "int16", 16),
    (Dtype::U16, "U16", "uint16", 16),
    (Dtype::F16, "F16", "float16", 16),
    (Dtype::BF16, "BF16", "bfloat16", 16),
    (Dtype::I32, "I32", "int32", 32),
    (Dtype::U32, "U32", "uint32", 32),
    (Dtype::F32, "F32", "float32", 32),
    (Dtype::C64, "C64", "complex64", 64),
    (Dtype::F64, "F64", "float64", 64),
    (Dtype::I64, "I64", "int64", 64),
    (Dtype::U64, "U64", "uint64", 64),
];

impl Dtype {
    /// The name in a safetensors header, such as `BF16`.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// Bits of one element: 4 to 64.
    pub fn bits(self) -> u64 {
        self.row().3
    }

    /// Bytes of one element, where an element is whole bytes.
    pub fn bytes(self) -> Option<u64> {
        self.bits().is_multiple_of(8).then_some(self.bits() / 8)
    }

    /// Types that a model computes with, which `--dtype` may cast.
    pub fn is_castable(self) -> bool {
        self.is_cast() || self == Self::F64
    }

    /// Types that a cast may give.
    pub fn is_cast(self) -> bool {
        matches!(self, Self::F32 | Self::F16 | Self::BF16)
    }

    pub fn from_safetensors(name: &str) -> Option<Self> {
        TABLE.iter().find(|row| row.1 == name).map(|row| row.0)
    }

    /// The name in torch without the module, such as `bfloat16`, where torch has the type.
    pub fn torch_name(self) -> Option<&'static str> {
        Some(self.row().2).filter(|name| !name.is_empty())
    }

    /// From torch's name without the module, such as `bfloat16`.
    pub fn from_torch(name: &str) -> Option<Self> {
        let name = match name {
            "half" => "float16",
            "float" => "float32",
            "double" => "float64",
            "short" => "int16",
            "int" => "int32",
            "long" => "int64",
            name => name,
        };
        TABLE
            .iter()
            .find(|row| !row.2.is_empty() && row.2 == name)
            .map(|row| row.0)
    }

    fn row(self) -> &'static (Self, &'static str, &'static str, u64) {
        &TABLE[self as usize]
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_stands_in_the_order_of_the_enum() {
        for (position, row) in TABLE.iter().enumerate() {
            assert_eq!(row.0 as usize, position);
            assert_eq!(Dtype::from_safetensors(row.1), Some(row.0));
        }
    }

    #[test]
    fn names_agree_with_the_safetensors_crate() {
        for row in &TABLE {
            let theirs: safetensors::Dtype =
                serde_json::from_str(&format!("\"{}\"", row.1)).unwrap();
            assert_eq!(theirs.bitsize() as u64, row.3, "{}", row.1);
        }
    }
}
