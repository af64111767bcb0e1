//! Families whose tensors no table lists: names pass as they are, but for what transformers holds otherwise in memory.

use super::Note;
use super::config::ConfigFile;
use super::names::{self, Natural, families};
use super::tied::{self, Tied};
use crate::checkpoint::Checkpoint;
use crate::error::Result;
use crate::mapping::{self, Config, MappedTensor, Outcome, Tables};
use crate::tensor::SourceTensor;

/// The tensors, unchecked. Also the name of the system, and what is tied.
pub fn map(
    checkpoint: &mut Checkpoint,
    tables: &Tables,
    config: &ConfigFile,
    notes: &mut Vec<Note>,
) -> Result<(String, Outcome, Option<Tied>)> {
    let model_type = config.model_type();
    if config.is_untyped()
        && let Some(error) = families::unsaid(tables, &checkpoint.tensors)
    {
        return Err(error);
    }
    notes.push(Note::warning(match config.values().is_quantized() {
        true => {
            "config.json speaks of quantized weights: names pass as they are, unchecked".to_owned()
        }
        false => format!("no table for family {model_type}: names pass as they are, unchecked"),
    }));
    let (tensors, beside) = names::own_names(std::mem::take(&mut checkpoint.tensors));
    notes.extend(names::left_out(&beside));
    names::refuse_foreign(tables, model_type, &tensors)?;
    let (system, mut outcome) = as_saved(tables, config.values(), tensors)?;
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
    Ok((system, outcome, tied))
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
