//! Weights with a code for each element under their own names: block fp8 (DeepSeek, Qwen: `weight_scale_inv`, or `scale`),
//! fp8 and int8 with scales for tensors, rows or blocks (compressed-tensors, fbgemm_fp8, modelopt FP8: `weight_scale`;
//! Mistral: `qscale_weight`).

use super::parts::Parts;
use super::weight::{Block, Weight};
use crate::tensor::{Code, Dtype, Tensor};

/// The blocks of DeepSeek's `weight_dequant`, where config.json names no others.
const DEEPSEEK: [u64; 2] = [128, 128];

pub fn weight(parts: &Parts, name: &str, codes: &Tensor) -> Option<Weight> {
    let code = match codes.dtype() {
        Dtype::F8_E4M3 => Code::E4M3,
        Dtype::I8 => Code::I8,
        _ => return None,
    };
    let module = name.strip_suffix("weight").unwrap_or(name);
    let scales = [
        format!("{name}_scale_inv"),
        format!("{name}_scale"),
        format!("{module}scale"),
        format!("{module}qscale_weight"),
    ];
    let scale = scales.iter().find(|scale| parts.has(scale))?;
    let mut weight = Weight::new(parts, name, code, name, scale)?;
    let has_one_scale = weight.scale.shape().elements() <= 1;
    let is_of_blocks = *scale != scales[1];
    if code == Code::E4M3 && !has_one_scale && is_of_blocks {
        weight.block = Block::ConfiguredOr(DEEPSEEK);
    }
    if let Some(scale) = scale_of_columns(parts, name, &weight) {
        weight.scale = scale;
    }
    Some(weight)
}

/// The scales of fbgemm's fused experts [experts, in, out] as [experts, 1, out]: it writes those of `gate_up_proj` like that,
/// those of `down_proj` as [experts, out, 1], though they are for columns, too.
fn scale_of_columns(parts: &Parts, name: &str, weight: &Weight) -> Option<Tensor> {
    let gate_up = format!("{}gate_up_proj_scale", name.strip_suffix("down_proj")?);
    let is_of_columns = matches!(parts.sole(&gate_up)?.shape().dims(), [_, 1, _]);
    match (weight.codes.shape().dims(), weight.scale.shape().dims()) {
        ([experts, _, columns], [of, scales, 1])
            if is_of_columns && of == experts && scales == columns =>
        {
            weight.scale.reshape(&[*experts, 1, *columns]).ok()
        }
        _ => None,
    }
}
