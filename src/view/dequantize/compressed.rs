//! compressed-tensors' packed schemes: integers of 4 and 8 bits in words of 32 (`pack-quantized`), and FP4 codes, two to a
//! byte (`nvfp4-pack-quantized`, `mxfp4-pack-quantized`).

use super::parts::Parts;
use super::weight::Weight;
use crate::tensor::{Code, Dtype, Global, Tensor};

pub fn weight(parts: &Parts, name: &str, codes: &Tensor) -> Option<Weight> {
    let own = name.strip_suffix("_packed")?;
    let new = |code| Weight::new(parts, own, code, name, &format!("{own}_scale"));
    if codes.dtype() == Dtype::I32 {
        let mut weight = new(Code::U4)?;
        weight.shape = weight.part(parts, format!("{own}_shape"));
        return Some(weight);
    }
    let mut weight = new(Code::E2M1)?;
    weight.add_global(parts, format!("{own}_global_scale"), Global::Over);
    Some(weight)
}
