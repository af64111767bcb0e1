//! DeepSeek V4's experts: two FP4 codes in a signed byte, and a power of two for each 32 of them (`X.weight`, `X.scale`; as
//! transformers writes them, `X.weight_scale_inv`).

use super::parts::Parts;
use super::weight::{Block, Weight};
use crate::tensor::{Code, Dtype, Tensor};

/// Codes of one scale, and the bytes that they take.
const GROUP: u64 = 32;
const BYTES: u64 = GROUP / 2;

pub fn weight(parts: &Parts, name: &str, codes: &Tensor) -> Option<Weight> {
    if codes.dtype() != Dtype::I8 {
        return None;
    }
    let module = name.strip_suffix("weight").unwrap_or(name);
    let scales = [format!("{module}scale"), format!("{name}_scale_inv")];
    let scale = scales.iter().find(|scale| parts.has(scale))?;
    let mut weight = Weight::new(parts, name, Code::E2M1, name, scale)?;
    let is_power_of_two = matches!(weight.scale.dtype(), Dtype::F8_E8M0 | Dtype::U8);
    let is_of_groups = weight.scale.sides().1 == codes.sides().1.div_ceil(BYTES);
    if !(is_power_of_two && is_of_groups) {
        return None;
    }
    weight.block = Block::Fixed([1, GROUP]);
    Some(weight)
}
