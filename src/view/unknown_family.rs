//! Families whose tensors no table lists: names pass as they are, but for what transformers holds otherwise in memory.

use std::borrow::Cow;

use super::config::ConfigFile;
use super::names::spelling::Spelling;
use super::names::{self, Natural};
use super::note::Note;
use super::options::Options;
use super::reading::Mapped;
use super::tied;
use crate::checkpoint::{Checkpoint, State, normalise};
use crate::error::Result;
use crate::mapping::{self, Config, MappedTensor, Outcome, Tables};
use crate::tensor::SourceTensor;

/// The tensors, unchecked.
pub fn map(
    checkpoint: &mut Checkpoint,
    tables: &Tables,
    config: &ConfigFile,
    options: &Options,
    notes: &mut Vec<Note>,
) -> Result<Mapped> {
    let model_type = config.model_type();
    let is_accepted = options.family.as_deref() == Some(model_type);
    let warning = Note::warning(match config.values().is_quantized() {
        true => {
            "config.json speaks of quantized weights: names pass as they are, unchecked".to_owned()
        }
        false => format!(
            "no table for family {model_type}: names pass as they are, unchecked; --family {model_type} accepts that"
        ),
    });
    if !is_accepted {
        notes.push(warning);
    }
    let state = State {
        tensors: std::mem::take(&mut checkpoint.tensors),
        dictionaries: Cow::Borrowed(&checkpoint.dictionaries),
        entry: options.entry.as_deref(),
        keeps_roots: checkpoint.is_hugging_face(),
    };
    let mut state = normalise(state, None)?;
    notes.extend(names::left_out(&state, options.keep_extra));
    names::refuse_foreign(tables, model_type, &state.model)?;
    let tensors = std::mem::take(&mut state.model);
    let shown = tensors.len();
    let (system, mut outcome) = as_saved(tables, config.values(), tensors)?;
    if options.keep_extra {
        outcome.tensors.extend(names::extra(&state)?);
    }
    if let Some(fused) = outcome.tensors.iter().find(|tensor| is_fused(&tensor.name)) {
        notes.push(Note::warning(format!(
            "{} holds all experts of a layer, as transformers 5 has them in memory: save_pretrained may write them apart",
            fused.name
        )));
    }
    if !checkpoint.has_own_order() {
        let name = |tensor: &MappedTensor| Natural(tensor.name.clone());
        outcome.tensors.sort_by_cached_key(name);
    }
    let family = tables.unknown_family(model_type);
    let tied = tied::drop_copy(family, config.values(), &mut outcome, notes)?;
    Ok(Mapped {
        system,
        entries: state.entries(shown),
        outcome,
        tied: tied.into_iter().collect(),
        spelling: Spelling::Own,
    })
}

/// The tensors under the names that `save_pretrained` gives them, and the system whose names they had.
fn as_saved(
    tables: &Tables,
    config: &Config,
    tensors: Vec<SourceTensor>,
) -> Result<(String, Outcome)> {
    let model_type = config.model_type().unwrap_or_default();
    let family = tables
        .unknown_family(model_type)
        .filter(|_| !config.is_quantized());
    let other = family.and_then(|family| names::other_system(tables, family, &tensors));
    let own = || tables.systems_of(family?).find(|system| system.identity);
    match (family, other.or_else(own)) {
        (Some(family), Some(system)) => {
            let outcome = mapping::apply(system, family, config, &tensors)?;
            Ok((system.name.clone(), outcome))
        }
        _ => Ok(("huggingface".to_owned(), mapping::pass_through(tensors)?)),
    }
}

fn is_fused(name: &str) -> bool {
    name.ends_with(".experts.gate_up_proj")
}
