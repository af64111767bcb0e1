//! Values of config.json that a checkpoint itself tells: the one beside it, params.json, and the arguments of the training.

use serde_json::{Map, Value};

use super::side_files::{self, CONFIG};
use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::mapping::{Config, Tables};
use crate::source::SourceFile;

/// Keys that say which tensors there are, and how they are read.
const WEIGHTS: [&str; 8] = [
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "num_hidden_layers",
    "hidden_size",
    "intermediate_size",
    "vocab_size",
    "num_local_experts",
];

/// Those of them that no shape tells.
const HEADS: [&str; 3] = ["num_attention_heads", "num_key_value_heads", "head_dim"];

/// Keys that a model computes with, whatever its tensors are.
const BESIDE: [&str; 1] = ["rope_theta"];

/// # Errors
/// When config.json contradicts what the checkpoint itself tells of its tensors. Shapes alone do not tell heads apart.
pub fn check(
    config: &Config,
    file: &SourceFile,
    checkpoint: &Checkpoint,
    tables: &Tables,
) -> Result<()> {
    let mut all = beside(file, checkpoint);
    all.extend(told(checkpoint, tables));
    match &*contradictions(&WEIGHTS, config, &all) {
        [] => Ok(()),
        all => Err(Error::Mapping(format!(
            "config.json is of another model: {}; give the right --config-from, or none",
            all.join("; ")
        ))),
    }
}

/// A warning where config.json contradicts the checkpoint in what no tensor shows.
pub fn doubt(config: &Config, checkpoint: &Checkpoint, tables: &Tables) -> Option<String> {
    match &*contradictions(&BESIDE, config, &told(checkpoint, tables)) {
        [] => None,
        all => Some(format!(
            "config.json: {}; it is shown as it is",
            all.join("; ")
        )),
    }
}

fn told(checkpoint: &Checkpoint, tables: &Tables) -> Map<String, Value> {
    let mut told = checkpoint.declared.clone();
    if let Some(params) = &checkpoint.params {
        told.extend(tables.declared(params));
    }
    told
}

/// Values of the config.json beside the weights on heads, which no shape tells, where `file` stands in for it.
fn beside(file: &SourceFile, checkpoint: &Checkpoint) -> Map<String, Value> {
    let mut files = checkpoint.side_files.iter();
    let own = files.find(|own| own.path == CONFIG && own.file.path() != file.path());
    let own = own.and_then(|own| side_files::read_config(&own.file).ok());
    let mut own = own.unwrap_or_default();
    if let Some(Value::Object(text)) = own.remove("text_config") {
        own.extend(text);
    }
    own.retain(|key, _| HEADS.contains(&&**key));
    own
}

fn contradictions(keys: &[&str], config: &Config, told: &Map<String, Value>) -> Vec<String> {
    let contradiction = |key: &&str| {
        let (said, own) = (number(config, key)?, told.get(*key)?);
        let differs = own.as_f64().is_some_and(|own| own != said);
        differs.then(|| format!("{key} is {said}, the checkpoint itself says {own}"))
    };
    keys.iter().filter_map(contradiction).collect()
}

/// A number that is a key's own, or since transformers 5 among those of the rotary embedding.
fn number(config: &Config, key: &str) -> Option<f64> {
    let rope = || config.get("rope_parameters")?.get(key);
    config.get(key).or_else(rope).and_then(Value::as_f64)
}
