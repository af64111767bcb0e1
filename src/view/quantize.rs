//! Linear weights as F8_E4M3 with a scale for each block of 128 rows and columns.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::mapping::MappedTensor;
use crate::tensor::{BLOCK, Dtype, Kernel, Tensor};

/// Parts of the names of modules that stay: embeddings, heads, norms and routers.
const STAY: [&str; 8] = [
    "embed",
    "lm_head",
    "norm",
    "router",
    "score",
    "shared_expert_gate",
    "wte",
    "wpe",
];

/// The tensors with quantized weights and their scales, and what config.json says of them.
pub fn quantize(tensors: Vec<MappedTensor>) -> Result<(Vec<MappedTensor>, Value)> {
    let mut quantized = Vec::with_capacity(2 * tensors.len());
    let mut stay = BTreeSet::new();
    let mut converted = BTreeSet::new();
    for tensor in tensors {
        let Some(module) = tensor.name.strip_suffix(".weight").map(str::to_owned) else {
            if tensor.tensor.shape().rank() > 2 && tensor.name.contains("experts") {
                return Err(Error::Mapping(format!(
                    "{}: holds all experts of a layer, which --quantize fp8 does not split; quantize it with the library that serves it",
                    tensor.name
                )));
            }
            if let Some((module, _)) = tensor.name.rsplit_once('.') {
                stay.insert(module.to_owned());
            }
            quantized.push(tensor);
            continue;
        };
        if !is_linear(&module, &tensor.tensor) {
            stay.insert(module);
            quantized.push(tensor);
            continue;
        }
        converted.insert(module);
        let (rows, columns) = tensor.tensor.sides();
        let blocks = [rows.div_ceil(BLOCK), columns.div_ceil(BLOCK)];
        let of = tensor.tensor.clone();
        let scales = Tensor::computed(
            Kernel::BlockScales,
            Dtype::F32,
            &blocks,
            std::slice::from_ref(&of),
        )?;
        let inputs = [of, scales.clone()];
        let codes = Tensor::computed(Kernel::BlockFp8, Dtype::F8_E4M3, &[rows, columns], &inputs)?;
        let scale_name = format!("{}_scale_inv", tensor.name);
        let sources = tensor.sources.clone();
        quantized.push(MappedTensor {
            tensor: codes,
            ..tensor
        });
        quantized.push(MappedTensor {
            name: scale_name.into(),
            tensor: scales,
            sources,
        });
    }
    if converted.is_empty() {
        return Err(Error::Mapping(
            "holds no linear weight that could be quantized; leave --quantize out".to_owned(),
        ));
    }
    let stay: Vec<&String> = stay.difference(&converted).collect();
    let says = json!({
        "activation_scheme": "dynamic",
        "fmt": "e4m3",
        "quant_method": "fp8",
        "weight_block_size": [BLOCK, BLOCK],
        "modules_to_not_convert": stay,
    });
    Ok((quantized, says))
}

fn is_linear(module: &str, tensor: &Tensor) -> bool {
    let last = module.rsplit('.').next().unwrap_or(module);
    tensor.shape().rank() == 2
        && tensor.dtype().is_cast()
        && last != "gate"
        && !STAY.iter().any(|part| last.contains(part))
}
