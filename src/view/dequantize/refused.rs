//! Formats that are not read, and parts that belong to no weight.

use std::collections::HashSet;

use serde_json::Value;

use super::parts::{described, last};
use crate::checkpoint::SourceTensor;
use crate::error::{Error, Result};
use crate::mapping::Config;
use crate::tensor::{Dtype, Tensor};

/// Parts of formats that are not read.
const PARTS: [(&str, &str); 10] = [
    ("weight_g_idx", "activation order (weight_g_idx)"),
    ("g_idx", "GPTQ"),
    ("qweight", "GPTQ or AWQ"),
    ("qzeros", "GPTQ or AWQ"),
    ("absmax", "bitsandbytes"),
    ("quant_map", "bitsandbytes"),
    ("nested_absmax", "bitsandbytes"),
    ("nested_quant_map", "bitsandbytes"),
    ("SCB", "bitsandbytes"),
    ("weight_format", "bitsandbytes"),
];

/// Values of `quant_method` in config.json whose weights are not read.
const METHODS: [&str; 12] = [
    "gptq",
    "awq",
    "bitsandbytes",
    "aqlm",
    "quip",
    "quanto",
    "eetq",
    "higgs",
    "hqq",
    "vptq",
    "spqr",
    "torchao",
];

/// Refuses a method that config.json names and that is not read.
pub fn check_method(config: &Config) -> Result<()> {
    let method = config
        .quantization()
        .and_then(|quantization| quantization.get("quant_method"))
        .and_then(Value::as_str);
    match method.filter(|method| METHODS.contains(method)) {
        None => Ok(()),
        Some(method) => Err(Error::Mapping(format!(
            "config.json: quant_method is {method}, whose weights are not read; dequantize them with the library that wrote them"
        ))),
    }
}

/// Refuses parts that are left of a format that is not read, and those that belong to no weight.
pub fn check_plain(tensors: &[SourceTensor]) -> Result<()> {
    let names: HashSet<&str> = tensors.iter().map(|tensor| &*tensor.name).collect();
    let mut tensors = tensors.iter();
    tensors.try_for_each(|tensor| check_one(tensor, &|name| names.contains(name)))
}

fn check_one(tensor: &SourceTensor, has: &dyn Fn(&str) -> bool) -> Result<()> {
    let end = last(&tensor.name);
    if let Some((_, format)) = PARTS.iter().find(|(part, _)| *part == end) {
        return refuse(
            tensor,
            &format!("is a part of {format}, which is not read"),
            "dequantize it with the library that wrote it",
        );
    }
    let dtype = tensor.parts.first().map(Tensor::dtype);
    let is_narrow = dtype.is_some_and(|dtype| dtype.bits() <= 8 && dtype != Dtype::Bool);
    match (is_scale(&tensor.name, has), is_narrow) {
        (true, _) => refuse(
            tensor,
            "belongs to no quantized weight",
            "take a complete save",
        ),
        (_, true) => refuse(
            tensor,
            &format!(
                "is {}, and no scale for it is there",
                dtype.map_or("", Dtype::name)
            ),
            "take a complete save",
        ),
        _ => Ok(()),
    }
}

/// Whether a name is that of a part of a quantized weight. A model may have parameters called `scale` or `..._scale`
/// (DeepSeek V4's `hc_attn_scale`): these are none, unless there is the weight that they would scale.
fn is_scale(name: &str, has: &dyn Fn(&str) -> bool) -> bool {
    let end = last(name);
    let module = name.strip_suffix(end).unwrap_or_default();
    let scaled = name
        .find("_scale")
        .and_then(|at| name.get(..at))
        .filter(|_| end.contains("_scale"));
    ["weight_packed", "weight_shape", "qscale_weight"].contains(&end)
        || end.starts_with("weight_scale")
        || end.starts_with("weight_global_scale")
        || ["_zero_point", "_scale_inv", "_scales", "_blocks"]
            .iter()
            .any(|part| end.ends_with(part))
        || end == "scale" && has(&format!("{module}weight"))
        || scaled.is_some_and(has)
}

fn refuse<T>(tensor: &SourceTensor, found: &str, hint: &str) -> Result<T> {
    let tensor = described(tensor);
    Err(Error::Mapping(format!("{tensor}: {found}; {hint}")))
}
