//! The arguments of the training that Megatron-LM saves with the weights: `args` of `model_optim_rng.pt` and `common.pt`
//! (Megatron-LM, training/checkpointing.py).

use serde_json::{Map, Value};

use super::torch_file::TorchFile;
use crate::checkpoint::folder::Folder;
use crate::error::{Error, Result};

/// Arguments under their own names and config.json's.
const NUMBERS: [(&str, &str); 3] = [
    ("num_attention_heads", "num_attention_heads"),
    ("num_layers", "num_hidden_layers"),
    ("hidden_size", "hidden_size"),
];

/// Returns the values of config.json that the arguments tell; none where there are no arguments.
pub fn declared(file: &TorchFile) -> Map<String, Value> {
    let number = |name: &str| file.get(&["args", name]).and_then(|value| value.as_u64());
    let mut declared = Map::new();
    for (argument, key) in NUMBERS {
        if let Some(value) = number(argument) {
            declared.insert(key.to_owned(), value.into());
        }
    }
    let has_groups = file.get(&["args", "group_query_attention"]);
    let has_groups = has_groups.and_then(|value| value.as_bool()) == Some(true);
    if let Some(groups) = number("num_query_groups").filter(|_| has_groups) {
        declared.insert("num_key_value_heads".to_owned(), groups.into());
    }
    declared
}

/// The same of a `torch_dist` folder.
///
/// # Errors
/// When its `common.pt` cannot be read, or tells of an order of rows that no table of this layout knows.
pub fn declared_beside(folder: &Folder) -> Result<Map<String, Value>> {
    const COMMON: &str = "common.pt";
    if !folder.exists(COMMON) {
        return Ok(Map::new());
    }
    let file = folder.open_file(COMMON)?;
    let common = TorchFile::open(file.clone())?;
    refuse_interleaved(&common).map_err(|reason| Error::checkpoint(file.path(), reason))?;
    Ok(declared(&common))
}

/// # Errors
/// When rotary embeddings turn neighbours, not halves: no table of this layout re-orders such rows.
pub fn refuse_interleaved(file: &TorchFile) -> std::result::Result<(), String> {
    match file.get(&["args", "rotary_interleaved"]).and_then(|value| value.as_bool()) {
        Some(true) => Err(
            "its args say rotary_interleaved, an order of rows that Hugging Face's models do not have; it is not served"
                .to_owned(),
        ),
        _ => Ok(()),
    }
}
