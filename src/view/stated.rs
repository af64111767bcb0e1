//! What a checkpoint itself tells of its config.json: params.json, and the arguments of the training.

use serde_json::Value;

use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::mapping::{Config, Tables};

/// Keys of config.json that are compared.
const KEYS: [&str; 9] = [
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "num_hidden_layers",
    "hidden_size",
    "intermediate_size",
    "vocab_size",
    "num_local_experts",
    "rope_theta",
];

/// # Errors
/// When config.json contradicts what the checkpoint itself tells. Shapes alone do not tell heads apart.
pub fn check(config: &Config, checkpoint: &Checkpoint, tables: &Tables) -> Result<()> {
    let mut stated = checkpoint.stated.clone();
    if let Some(params) = &checkpoint.params {
        stated.extend(tables.stated(params));
    }
    let contradiction = |key: &&str| {
        let (said, own) = (number(config, key)?, stated.get(*key)?);
        (Some(said) != own.as_f64())
            .then(|| format!("{key} is {said}, the checkpoint itself says {own}"))
    };
    match &*KEYS.iter().filter_map(contradiction).collect::<Vec<_>>() {
        [] => Ok(()),
        all => Err(Error::Mapping(format!(
            "config.json is of another model: {}; give the right --config-from, or none",
            all.join("; ")
        ))),
    }
}

/// A number that is a key's own, or since transformers 5 among those of the rotary embedding.
fn number(config: &Config, key: &str) -> Option<f64> {
    let rope = || config.get("rope_parameters")?.get(key);
    config.get(key).or_else(rope).and_then(Value::as_f64)
}
