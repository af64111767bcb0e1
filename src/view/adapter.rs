//! A LoRA adapter as PEFT's folder: `adapter_model.safetensors` and `adapter_config.json`.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::config::ConfigFile;
use super::note::Note;
use super::options::{DtypeChoice, Options};
use super::output_format::OutputFormat;
use super::shown::View;
use super::side_files::{read_config, side_files};
use super::{detect_system, dtype};
use crate::checkpoint::{self, Adapter, Checkpoint, SideFile, lora::is_pefts};
use crate::error::{Error, Result};
use crate::mapping::{self, MappedTensor, System, Tables};
use crate::output::{self, Attributes, Naming, Split, Weights};
use crate::source::SourceFile;
use crate::tensor::SourceTensor;

const CONFIG: &str = "adapter_config.json";

/// An adapter under PEFT's names, and its config.
pub struct Loaded {
    pub tensors: Vec<MappedTensor>,
    pub config: Map<String, Value>,
    /// adapter_config.json, where there is one.
    file: Option<Arc<SourceFile>>,
    system: Option<String>,
}

/// The adapter of a checkpoint. `side_files` has the config.json of the model, for names that are not PEFT's.
pub fn load(checkpoint: &Checkpoint, side_files: &[SideFile], options: &Options) -> Result<Loaded> {
    let Adapter {
        tensors,
        config: file,
        training,
    } = checkpoint.adapter()?;
    let named = options
        .config_from
        .as_deref()
        .map(checkpoint::adapter_config_in);
    let named = named.transpose()?.flatten();
    // Where adapters are merged, --config-from is the base's.
    let file = match options.merge.is_empty() {
        true => named.or(file),
        false => file.or(named),
    };
    let are_pefts = tensors.iter().all(|tensor| is_pefts(&tensor.name));
    let (system, tensors) = match are_pefts {
        true => (None, mapping::pass_through(tensors)?.tensors),
        false => map(checkpoint, &tensors, side_files, options)?,
    };
    let config = match &file {
        Some(file) => read_config(file)?,
        None => made(&tensors, &training.unwrap_or_default(), options.lora_alpha)?,
    };
    Ok(Loaded {
        tensors,
        config,
        file,
        system,
    })
}

pub fn view(checkpoint: Checkpoint, options: &Options) -> Result<View> {
    if !matches!(options.layout, OutputFormat::Hf | OutputFormat::Npy) {
        return Err(Error::Mapping(
            "an adapter is read in PEFT's own layout alone; leave out --as".to_owned(),
        ));
    }
    let side_files = side_files(&checkpoint, options.config_from.as_deref())?;
    let Loaded {
        mut tensors,
        config,
        file,
        system,
    } = load(&checkpoint, &side_files, options)?;
    match options.dtype {
        DtypeChoice::Keep => {}
        DtypeChoice::To(to) => tensors = dtype::cast(tensors, Some(to), None)?,
        DtypeChoice::Config => {
            return Err(Error::Mapping(
                "an adapter's config names no dtype; pass --dtype bf16, f16 or f32".to_owned(),
            ));
        }
    }
    let weights = Weights {
        naming: Naming::Adapter,
        units: mapping::units(None, &tensors),
        split: Split::AtMost(u64::MAX),
        total_parameters: 0,
    };
    let mut files = options.layout.weight_files(&tensors, &weights);
    files.push(match file {
        Some(file) => output::source_file(CONFIG, file),
        None => {
            let attributes = Attributes::of(output::sources(&tensors));
            output::inline_file(CONFIG, output::python_json(&config), attributes)
        }
    });
    Ok(View {
        system: system.unwrap_or(checkpoint.layout.word().to_owned()),
        evidence: checkpoint.layout.evidence(),
        family: "adapter".to_owned(),
        tensors,
        dropped: Vec::new(),
        tied: Vec::new(),
        entries: Vec::new(),
        notes: Note::all_of(&checkpoint),
        files,
    })
}

/// An adapter in its system's own names, under PEFT's. Also the system's name.
fn map(
    checkpoint: &Checkpoint,
    tensors: &[SourceTensor],
    side_files: &[SideFile],
    options: &Options,
) -> Result<(Option<String>, Vec<MappedTensor>)> {
    let tables = Tables::load(options.mapping.as_deref())?;
    let config = ConfigFile::find(checkpoint, side_files, &tables, options)?;
    let Some(family) = config.family(&tables, options) else {
        return Err(Error::Mapping(format!(
            "the adapter has names like {}, and no table knows family {}: add one with --mapping FILE",
            tensors[0].name,
            config.model_type()
        )));
    };
    let systems = mapping::adapter_systems(&tables, family);
    let systems: Vec<&System> = systems.iter().collect();
    let refuse = |tensor: &SourceTensor| {
        Error::Mapping(format!(
            "{}: PEFT's files have no place for it: in family {} its weight is unknown, or a part of a fused one; merge it in training, and mount the merged model",
            tensor.origin, family.name
        ))
    };
    let chosen = detect_system::choose(
        &systems,
        family,
        tensors,
        options.system.as_deref(),
        options.entry.as_deref(),
        checkpoint,
        config.values().is_base(),
    )?
    .ok_or_else(|| refuse(&tensors[0]))?;
    let system = chosen.system;
    if let Some(tensor) = chosen.state.beside.first() {
        return Err(refuse(tensor));
    }
    let outcome = mapping::apply(system, family, config.values(), &chosen.tensors)?;
    if let Some(tensor) = outcome.unknown.first() {
        return Err(refuse(tensor));
    }
    let expected = mapping::expected(family, config.values(), usize::MAX)?;
    mapping::check_adapter(&expected, &outcome.tensors)?;
    Ok((Some(system.name.clone()), outcome.tensors))
}

/// The config as verl's merger makes it (0.9.1, model_merger/base_model_merger.py): rank and alpha of the training, and as
/// targets the modules that the adapter has.
fn made(
    tensors: &[MappedTensor],
    training: &Map<String, Value>,
    alpha: Option<f64>,
) -> Result<Map<String, Value>> {
    let Some(alpha) = alpha
        .map(Value::from)
        .or(training.get("lora_alpha").cloned())
        .filter(Value::is_number)
    else {
        let reason = "neither an adapter_config.json nor a lora_train_meta.json beside the adapter tells its alpha: pass --lora-alpha X";
        return Err(Error::Mapping(reason.to_owned()));
    };
    let mut config = json!({
        "bias": "none",
        "inference_mode": true,
        "lora_alpha": alpha,
        "peft_type": "LORA",
        "r": rank(tensors)?,
        "target_modules": targets(tensors),
        "task_type": training.get("task_type"),
    });
    let mut names = tensors.iter().map(|tensor| &tensor.name);
    if names.any(|name| name.ends_with(".lora_magnitude_vector")) {
        config["use_dora"] = true.into();
    }
    let whole = whole_modules(tensors);
    if !whole.is_empty() {
        config["modules_to_save"] = json!(whole);
    }
    match config {
        Value::Object(config) => Ok(config),
        _ => Ok(Map::new()),
    }
}

/// The rank that all modules have.
fn rank(tensors: &[MappedTensor]) -> Result<u64> {
    let is_half = |tensor: &&MappedTensor| tensor.name.ends_with(".lora_A.weight");
    let ranks: BTreeSet<u64> = tensors
        .iter()
        .filter(is_half)
        .filter_map(|tensor| tensor.tensor.shape().dims().first().copied())
        .collect();
    match Vec::from_iter(ranks)[..] {
        [rank] => Ok(rank),
        ref ranks => Err(Error::Mapping(format!(
            "modules of the adapter have ranks {ranks:?}: put its adapter_config.json beside it"
        ))),
    }
}

/// `lm_head` of `base_model.model.lm_head.weight`, which was trained whole.
fn whole_modules(tensors: &[MappedTensor]) -> BTreeSet<&str> {
    let names = tensors.iter().map(|tensor| &*tensor.name);
    let whole = names.filter(|name| !name.contains(".lora_"));
    whole.filter_map(|name| name.rsplit('.').nth(1)).collect()
}

/// `q_proj` of `base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight`.
fn targets(tensors: &[MappedTensor]) -> BTreeSet<&str> {
    let module = |tensor: &'_ MappedTensor| -> Option<usize> { tensor.name.find(".lora_") };
    tensors
        .iter()
        .filter_map(|tensor| tensor.name.get(..module(tensor)?)?.rsplit('.').next())
        .collect()
}
