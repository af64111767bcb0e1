//! The arguments of the training that Megatron-LM saves with the weights: `args` of `model_optim_rng.pt` and `common.pt`
//! (Megatron-LM, training/checkpointing.py).

use serde_json::{Map, Value};

use super::folder::Folder;
use super::torch_file::TorchFile;

/// Arguments under their own names and config.json's.
const NUMBERS: [(&str, &str); 3] = [
    ("num_attention_heads", "num_attention_heads"),
    ("num_layers", "num_hidden_layers"),
    ("hidden_size", "hidden_size"),
];

/// What the arguments tell of config.json; nothing where there are none.
pub fn stated(file: &TorchFile) -> Map<String, Value> {
    let number = |name: &str| file.get(&["args", name]).and_then(|value| value.as_u64());
    let mut stated = Map::new();
    for (argument, key) in NUMBERS {
        if let Some(value) = number(argument) {
            stated.insert(key.to_owned(), value.into());
        }
    }
    let has_groups = file.get(&["args", "group_query_attention"]);
    let has_groups = has_groups.and_then(|value| value.as_bool()) == Some(true);
    if let Some(groups) = number("num_query_groups").filter(|_| has_groups) {
        stated.insert("num_key_value_heads".to_owned(), groups.into());
    }
    stated
}

/// The same of a `torch_dist` folder. What cannot be read there tells nothing.
pub fn stated_beside(folder: &Folder) -> Map<String, Value> {
    const COMMON: &str = "common.pt";
    let file = folder.exists(COMMON).then(|| folder.open_file(COMMON).ok());
    let file = file.flatten().and_then(|file| TorchFile::open(file).ok());
    file.map_or_else(Map::new, |file| stated(&file))
}

/// # Errors
/// When rotary embeddings turn neighbours, not halves: no table of this layout re-orders such rows.
pub fn refuse_interleaved(file: &TorchFile) -> Result<(), String> {
    match file.get(&["args", "rotary_interleaved"]).and_then(|value| value.as_bool()) {
        Some(true) => Err(
            "its args say rotary_interleaved, an order of rows that Hugging Face's models do not have; it is not served"
                .to_owned(),
        ),
        _ => Ok(()),
    }
}
