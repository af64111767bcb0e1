//! modelopt's NVFP4: two codes in a byte, `weight_scale` times `weight_scale_2`.

use super::parts::Parts;
use super::weight::Weight;
use crate::tensor::{Code, Dtype, Global, Tensor};

pub fn weight(parts: &Parts, name: &str, codes: &Tensor) -> Option<Weight> {
    if codes.dtype() != Dtype::U8 {
        return None;
    }
    let scale = format!("{name}_scale");
    let mut weight = Weight::new(parts, name, Code::E2M1, name, &scale)?;
    weight.add_global(parts, format!("{name}_scale_2"), Global::Times);
    Some(weight)
}
