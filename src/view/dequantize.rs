//! Quantized weights as the floats that they stand for. Tensors tell which weights are quantized, not the lists of a config.
//!
//! Each scheme recognises its weights by the names and types of their parts. Whatever the scheme, a weight becomes one
//! computed tensor: codes times the scales of their blocks.

mod blocks;
mod compressed;
mod deepseek_v4;
mod gpt_oss;
mod modelopt;
mod parts;
mod plain;
mod refused;
mod weight;

use std::collections::HashMap;

use crate::checkpoint::SourceTensor;
use crate::error::{Error, Result};
use crate::mapping::Config;
use crate::tensor::{Dtype, Tensor};

use blocks::Blocks;
use parts::{Parts, last};
use weight::Weight;

/// Parts that hold scales of activations and of the cache, which weights in floats do without.
const DROPPED: [&str; 7] = [
    "qscale_act",
    "input_scale",
    "input_scale_ub",
    "activation_scale",
    "input_global_scale",
    "k_scale",
    "v_scale",
];

/// A file that describes quantized weights alone.
pub const SIDE_FILE: &str = "hf_quant_config.json";

/// Returns the weight whose codes are the tensor of this name, if the scheme knows it.
type Scheme = fn(&Parts, &str, &Tensor) -> Option<Weight>;

/// The first that recognises a weight reads it.
const SCHEMES: [Scheme; 5] = [
    compressed::weight,
    gpt_oss::weight,
    deepseek_v4::weight,
    modelopt::weight,
    plain::weight,
];

/// Returns the tensors with floats of type `to` in the place of quantized weights.
pub fn dequantize(
    tensors: Vec<SourceTensor>,
    config: &Config,
    to: Dtype,
) -> Result<Vec<SourceTensor>> {
    refused::check_method(config)?;
    let blocks = Blocks::of(config);
    let mut parts = Parts::new(tensors);
    let mut floats = HashMap::new();
    for number in 0..parts.len() {
        if let Some(name) = parts.name(number)
            && let Some(weight) = recognised(&parts, &name)
        {
            let tensor = weight.take_floats(&mut parts, &name, &blocks, to)?;
            floats.insert(number, SourceTensor::whole(weight.name, tensor));
        }
    }
    let count = floats.len();
    let rest = parts.into_tensors().enumerate();
    let whole = rest.filter_map(|(number, rest)| floats.remove(&number).or(rest));
    let whole: Vec<SourceTensor> = whole.filter(|tensor| !is_dropped(tensor)).collect();
    refused::check_plain(&whole)?;
    if count == 0 {
        return Err(Error::Mapping(
            "holds no quantized weights; leave --dequantize out".to_owned(),
        ));
    }
    Ok(whole)
}

fn recognised(parts: &Parts, name: &str) -> Option<Weight> {
    let codes = parts.sole(name)?;
    SCHEMES
        .iter()
        .find_map(|scheme| scheme(parts, name, &codes))
}

fn is_dropped(tensor: &SourceTensor) -> bool {
    DROPPED.contains(&last(&tensor.name))
}
