//! DeepSeek V4's experts: two FP4 codes in a signed byte, and a power of two for each 32 of them (`X.weight`, `X.scale`).

use super::parts::Parts;
use super::weight::{Block, Weight};
use crate::tensor::{Code, Dtype, Tensor};

pub fn weight(parts: &Parts, name: &str, codes: &Tensor) -> Option<Weight> {
    let module = name.strip_suffix("weight")?;
    if codes.dtype() != Dtype::I8 {
        return None;
    }
    let mut weight = Weight::new(parts, name, Code::E2M1, name, &format!("{module}scale"))?;
    weight.block = Block::Fixed([1, 32]);
    Some(weight)
}
