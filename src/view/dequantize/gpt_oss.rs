//! gpt-oss's MXFP4: `P_blocks` [experts, out, groups, 16] with `P_scales`, shown transposed as `P` [experts, in, out].

use super::parts::Parts;
use super::weight::Weight;
use crate::tensor::{Code, Tensor};

pub fn weight(parts: &Parts, name: &str, _codes: &Tensor) -> Option<Weight> {
    let own = name.strip_suffix("_blocks")?;
    let scales = format!("{own}_scales");
    let mut weight = Weight::new(parts, own, Code::E2M1, name, &scales)?;
    weight.is_transposed = true;
    Some(weight)
}
