//! LoRA adapters merged into the weights of their base, as PEFT's `merge_and_unload` merges them.

mod experts;
mod settings;
mod update;
mod weights;
mod whole;

use std::collections::BTreeMap;
use std::path::Path;

use super::adapter::{self, Loaded};
use super::options::{MergedAdapter, Options};
use super::side_files::have_config;
use crate::checkpoint::lora::PREFIX;
use crate::checkpoint::{Checkpoint, SideFile};
use crate::error::{Error, Result};
use crate::mapping::MappedTensor;
use crate::run;

use settings::Settings;
use update::Factors;
use weights::OTHER;
pub use weights::{Base, Weights};

/// Merges every adapter that the options name, one after the other. `own` is the checkpoint of the base.
pub fn merge(
    weights: &mut Weights<'_>,
    own: &Checkpoint,
    side_files: &[SideFile],
    options: &Options,
) -> Result<()> {
    for merged in &options.merge {
        match merged {
            MergedAdapter::Own { .. } if !own.holds_unmerged_adapter() => {
                return Err(Error::Mapping(
                    "--merge own: the weights hold no adapter; one in files beside them is merged into them already (torchtune) or belongs to another base: name that base, and the adapter with --merge DIR"
                        .to_owned(),
                ));
            }
            MergedAdapter::Own { weight } => {
                let loaded = adapter::load(own, side_files, options)?;
                merge_one(weights, loaded, *weight)?;
            }
            MergedAdapter::At { path, weight } => {
                let merged = merge_from(weights, path, side_files, options, *weight);
                merged.map_err(|error| match error {
                    Error::Mapping(reason) => Error::checkpoint(path, reason),
                    error => error,
                })?;
            }
        }
    }
    Ok(())
}

fn merge_from(
    weights: &mut Weights<'_>,
    path: &Path,
    side_files: &[SideFile],
    options: &Options,
    weight: f64,
) -> Result<()> {
    let checkpoint = run::open(path, &options.opening_of_other())?;
    let own = &checkpoint.side_files;
    let has_config = have_config(own);
    let side_files = if has_config { own } else { side_files };
    let options = Options {
        system: None,
        ..options.clone()
    };
    merge_one(
        weights,
        adapter::load(&checkpoint, side_files, &options)?,
        weight,
    )
}

/// The parts that an adapter has for one module.
#[derive(Default)]
struct Module {
    left: Option<MappedTensor>,
    right: Option<MappedTensor>,
    bias: Option<MappedTensor>,
    embedding_left: Option<MappedTensor>,
    embedding_right: Option<MappedTensor>,
    magnitude: Option<MappedTensor>,
    tokens: Option<MappedTensor>,
    /// Whole tensors by the ends of their names, and where they come from.
    whole: Vec<MappedTensor>,
}

impl Module {
    fn has_parts(&self) -> bool {
        self.left.is_some() || self.right.is_some() || self.embedding_left.is_some()
    }
}

fn merge_one(weights: &mut Weights<'_>, loaded: Loaded, weight: f64) -> Result<()> {
    let settings = Settings::of(&loaded.config, weight)?;
    let modules = modules(loaded.tensors)?;
    weights.begin_adapter();
    // Weights are replaced before they are updated.
    for (name, module) in &modules {
        for whole in &module.whole {
            weights.replace(whole, module.has_parts(), settings.saves(name))?;
        }
    }
    let mut experts = experts::Nested::default();
    // In the order of the model the head is last, which counts where it is tied.
    let is_head = |name: &str| weights.base.head.strip_suffix(".weight") == Some(name);
    let (heads, others): (Vec<_>, Vec<_>) = modules.iter().partition(|(name, _)| is_head(name));
    for (name, module) in others.into_iter().chain(heads) {
        if let Some(tokens) = &module.tokens {
            weights.replace_rows(name, tokens, &settings)?;
        }
        merge_module(weights, name, module, &settings, &mut experts)?;
    }
    experts.merge(weights, &settings)
}

fn merge_module(
    weights: &mut Weights<'_>,
    name: &str,
    module: &Module,
    settings: &Settings,
    experts: &mut experts::Nested,
) -> Result<()> {
    let lacks = |part: &str| {
        Err(Error::Mapping(format!(
            "{name}: lacks its {part}; take a complete save"
        )))
    };
    match (&module.left, &module.right) {
        (None, None) => {
            if module.bias.is_some()
                || module.magnitude.is_some() && module.embedding_left.is_none()
            {
                return lacks("lora_A and lora_B");
            }
        }
        (Some(_), None) => return lacks("lora_A"),
        (None, Some(_)) => return lacks("lora_B"),
        (Some(left), Some(right)) => {
            let inner = name.replace(".base_layer", "");
            if settings.has_parameters_of(&inner) {
                if module.bias.is_some() || module.magnitude.is_some() {
                    return Err(Error::Mapping(format!(
                        "{name}: a bias or a magnitude of target_parameters, which PEFT has not; {OTHER}"
                    )));
                }
                experts.add(inner, name.matches(".base_layer").count(), left, right);
                return Ok(());
            }
            let magnitude = module.magnitude.as_ref();
            let factors = Factors {
                left,
                right,
                magnitude,
            };
            weights.update_linear(name, factors, settings)?;
            if let Some(bias) = &module.bias {
                weights.update_bias(name, bias, left, settings)?;
            }
        }
    }
    match (&module.embedding_left, &module.embedding_right) {
        (None, None) => Ok(()),
        (Some(_), Some(_)) if module.magnitude.is_some() => Err(Error::Mapping(format!(
            "{name}: DoRA on an embedding is not merged; merge it with PEFT"
        ))),
        (Some(left), Some(right)) => {
            let factors = Factors {
                left,
                right,
                magnitude: None,
            };
            weights.update_embedding(name, factors, settings)
        }
        _ => lacks("lora_embedding_A and lora_embedding_B"),
    }
}

/// The tensors of an adapter by module, in the order of their names with numbers counted.
fn modules(tensors: Vec<MappedTensor>) -> Result<BTreeMap<String, Module>> {
    let mut modules: BTreeMap<String, Module> = BTreeMap::new();
    for tensor in tensors {
        let name = tensor
            .name
            .strip_prefix(PREFIX)
            .unwrap_or(&tensor.name)
            .to_owned();
        let (module, part) = split(&name);
        let own = modules.entry(module.to_owned()).or_default();
        let place = match part {
            "lora_A.weight" => &mut own.right,
            "lora_B.weight" => &mut own.left,
            "lora_B.bias" => &mut own.bias,
            "lora_embedding_A" => &mut own.embedding_right,
            "lora_embedding_B" => &mut own.embedding_left,
            "lora_magnitude_vector" => &mut own.magnitude,
            "trainable_tokens_delta" => &mut own.tokens,
            part if part.contains("lora_") || part.contains("trainable_tokens") => {
                return Err(Error::Mapping(format!(
                    "{name}: a part of an adapter that is not merged; merge it with PEFT"
                )));
            }
            _ => {
                own.whole.push(MappedTensor {
                    name: name.into(),
                    ..tensor
                });
                continue;
            }
        };
        *place = Some(tensor);
    }
    Ok(modules)
}

/// Splits a name into a module and its part: from `lora_` on, trained tokens, or else the last component.
fn split(name: &str) -> (&str, &str) {
    let name_of_tokens = ".token_adapter.trainable_tokens_delta";
    if let Some(module) = name.strip_suffix(name_of_tokens) {
        return (module, "trainable_tokens_delta");
    }
    match name.find(".lora_") {
        Some(at) => name
            .split_at_checked(at)
            .map_or((name, ""), |(module, part)| {
                (module, part.trim_start_matches('.'))
            }),
        None => name.rsplit_once('.').unwrap_or(("", name)),
    }
}
