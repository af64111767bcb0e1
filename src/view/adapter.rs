//! A LoRA adapter as PEFT's folder: `adapter_model.safetensors` and `adapter_config.json`.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{DtypeChoice, Options, View, dtype};
use crate::checkpoint::{Adapter, Checkpoint};
use crate::error::{Error, Result};
use crate::mapping::{self, MappedTensor};
use crate::repo::{self, Attributes, Naming, VirtualFile, Weights};

const CONFIG: &str = "adapter_config.json";

pub fn view(checkpoint: Checkpoint, options: &Options) -> Result<View> {
    let Adapter {
        tensors,
        config,
        training,
    } = checkpoint.adapter;
    if tensors.is_empty() {
        return Err(Error::Mapping("holds no adapter".to_owned()));
    }
    let mut outcome = mapping::pass_through(tensors)?;
    match options.dtype {
        DtypeChoice::Keep => {}
        DtypeChoice::To(to) => outcome.tensors = dtype::cast(outcome.tensors, Some(to), None)?,
        DtypeChoice::Config => {
            return Err(Error::Mapping(
                "an adapter's config names no dtype; pass --dtype bf16, f16 or f32".to_owned(),
            ));
        }
    }
    let weights = Weights {
        naming: Naming::Adapter,
        units: mapping::units(None, &outcome.tensors),
        max_shard_size: u64::MAX,
        total_parameters: 0,
    };
    let mut files = options.layout.weight_files(&outcome.tensors, &weights);
    files.push(match (config, training) {
        (Some(file), _) => repo::source_file(CONFIG, file),
        (None, Some(training)) => made(&outcome.tensors, &training)?,
        (None, None) => {
            let reason = "the adapter has no adapter_config.json and no lora_train_meta.json beside it: its alpha is unknown";
            return Err(Error::Mapping(reason.to_owned()));
        }
    });
    Ok(View {
        system: checkpoint.layout.word().to_owned(),
        evidence: checkpoint.layout.evidence(),
        family: "adapter".to_owned(),
        tensors: outcome.tensors,
        dropped: outcome.dropped,
        tied: None,
        notes: checkpoint
            .notes
            .into_iter()
            .map(super::Note::remark)
            .collect(),
        files,
    })
}

/// The config as verl's merger makes it (0.9.1, model_merger/base_model_merger.py): rank and alpha of the training, and as
/// targets the modules that the adapter has.
fn made(tensors: &[MappedTensor], training: &Map<String, Value>) -> Result<VirtualFile> {
    let stated = |key: &str| {
        let missing = || {
            Error::Mapping(format!(
                "lora_train_meta.json has no {key}, so no adapter_config.json can be made"
            ))
        };
        training.get(key).cloned().ok_or_else(missing)
    };
    let config = json!({
        "bias": "none",
        "inference_mode": true,
        "lora_alpha": stated("lora_alpha")?,
        "peft_type": "LORA",
        "r": stated("r")?,
        "target_modules": targets(tensors),
        "task_type": training.get("task_type"),
    });
    let sources = tensors.iter().flat_map(repo::sources).map(|file| &**file);
    Ok(repo::inline_file(
        CONFIG,
        repo::python_json(&config),
        Attributes::of(sources),
    ))
}

/// `q_proj` of `base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight`.
fn targets(tensors: &[MappedTensor]) -> BTreeSet<&str> {
    let module = |tensor: &'_ MappedTensor| -> Option<usize> { tensor.name.find(".lora_") };
    tensors
        .iter()
        .filter_map(|tensor| tensor.name.get(..module(tensor)?)?.rsplit('.').next())
        .collect()
}
