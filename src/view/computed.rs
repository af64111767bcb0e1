//! Options that change values: weights are dequantized before they are mapped; then, cast, they are averaged or have deltas added, have
//! adapters merged, and are quantized.

use std::path::Path;

use super::config::ConfigFile;
use super::note::Note;
use super::options::Options;
use super::shown::Open;
use super::tied::Tied;
use super::{combine, dequantize as quantized, merge, quantize};
use crate::checkpoint::{Checkpoint, SideFile};
use crate::error::{Error, Result};
use crate::mapping::{Family, MappedTensor, Tables};

/// Puts floats in the place of quantized weights, where the options say so.
pub fn dequantize(
    checkpoint: &mut Checkpoint,
    side_files: &mut Vec<SideFile>,
    config: &mut ConfigFile<'_>,
    options: &Options,
) -> Result<()> {
    if let Some(dtype) = options.dequantize {
        let tensors = std::mem::take(&mut checkpoint.tensors);
        checkpoint.tensors = quantized::dequantize(tensors, config.values(), dtype)?;
        config.dequantize();
        side_files.retain(|file| file.path != quantized::SIDE_FILE);
    }
    Ok(())
}

/// The context in which mapped and cast tensors are computed.
pub struct Stage<'a> {
    pub source: &'a Path,
    pub checkpoint: &'a Checkpoint,
    pub side_files: &'a [SideFile],
    pub tables: &'a Tables,
    pub family: Option<&'a Family>,
    pub options: &'a Options,
    /// Opens members.
    pub open: &'a Open<'a>,
}

impl Stage<'_> {
    pub fn compute(
        &self,
        tensors: Vec<MappedTensor>,
        config: &mut ConfigFile<'_>,
        tied: &mut Option<Tied>,
    ) -> Result<Vec<MappedTensor>> {
        let mut tensors = combine::combine(tensors, self.source, self.options, self.open)?;
        if !self.options.merge.is_empty() {
            tensors = self.merge(tensors, config, tied)?;
        }
        if self.options.quantizes {
            refuse_quantized(config, "--quantize fp8")?;
            let says;
            (tensors, says) = quantize::quantize(tensors)?;
            config.set("quantization_config", says);
        }
        Ok(tensors)
    }

    /// A warning where a save holds an adapter that is neither shown nor merged.
    pub fn note(&self) -> Result<Option<Note>> {
        if !self.options.merge.is_empty() || self.checkpoint.adapter_tensors()?.is_empty() {
            return Ok(None);
        }
        let text = match self.checkpoint.holds_unmerged_adapter() {
            true => {
                "the save holds a base and its adapter: the base alone is shown; --merge own merges them, --adapter shows the adapter"
            }
            false => {
                "an adapter lies beside the weights: they are shown as they are, with it merged if torchtune saved them; --adapter shows it, --merge own is for weights that are yet without it"
            }
        };
        Ok(Some(Note::warning(text.to_owned())))
    }

    /// The tensors with all adapters merged. An adapter may give a tied head a weight of its own.
    fn merge(
        &self,
        tensors: Vec<MappedTensor>,
        config: &mut ConfigFile<'_>,
        tied: &mut Option<Tied>,
    ) -> Result<Vec<MappedTensor>> {
        refuse_quantized(config, "--merge")?;
        let model_type = config.model_type().to_owned();
        let family = self.family.or(self.tables.unknown_family(&model_type));
        let mut systems = family
            .into_iter()
            .flat_map(|family| self.tables.systems_of(family));
        let or = |name: Option<&String>, usual: &str| name.map_or(usual, |name| name).to_owned();
        let has_head = |name: &str| tensors.iter().any(|tensor| *tensor.name == *name);
        let head = or(family.map(|family| &family.head), "lm_head.weight");
        let is_tied = tied.is_some()
            || config.values().get("tie_word_embeddings") == Some(&true.into()) && !has_head(&head);
        let values = config.values().clone();
        let base = merge::Base {
            config: &values,
            family,
            system: systems.find(|system| system.identity),
            embedding: or(
                family.map(|family| &family.embedding),
                "model.embed_tokens.weight",
            ),
            head,
            is_tied,
        };
        let mut weights = merge::Weights::new(base, tensors);
        merge::merge(&mut weights, self.checkpoint, self.side_files, self.options)?;
        if weights.is_untied {
            config.set("tie_word_embeddings", false.into());
            *tied = None;
        }
        Ok(weights.tensors)
    }
}

fn refuse_quantized(config: &ConfigFile<'_>, flag: &str) -> Result<()> {
    match config.values().is_quantized() {
        false => Ok(()),
        true => Err(Error::Mapping(format!(
            "{flag}: the weights are quantized; add --dequantize bf16"
        ))),
    }
}
