//! A model as another system's readers start from it: under that system's names, in torch's formats, with the side files of
//! the target.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::config::ConfigFile;
use super::names::spelling::Spelling;
use super::note::Note;
use super::options::Options;
use super::output_format::{OutputFormat, known_targets};
use super::params;
use super::tied::Tied;
use crate::error::{Error, Result};
use crate::mapping::{self, Config, Family, MappedTensor, Tables, TargetNames, Written};
use crate::output::{self, Attributes, Content, Dcp, Item, Naming, Split, VirtualFile, Weights};
use crate::tensor::{Dtype, Shape};

/// Most chunks of a DCP, of whose `.metadata` each takes some 110 bytes.
const MOST_CHUNKS: u64 = 1 << 22;

/// The weight files and side files of a target, and its tensors.
pub struct Target {
    pub tensors: Vec<MappedTensor>,
    pub files: Vec<VirtualFile>,
}

/// A mapped model, and what says how it is to be shown.
pub struct Model<'a> {
    pub tables: &'a Tables,
    pub family: Option<&'a Family>,
    pub config: &'a ConfigFile<'a>,
    pub tensors: &'a [MappedTensor],
    pub tied: Option<&'a Tied>,
    /// How the names, which are those of a model with a head, are shown.
    pub spelling: Spelling,
    pub total_parameters: u64,
}

impl Model<'_> {
    /// The model as a Hugging Face directory, or as one file for each tensor.
    pub fn in_directory(&self, options: &Options) -> Target {
        let weights = Weights {
            naming: Naming::Model,
            units: mapping::units(self.family, self.tensors),
            split: options.split,
            total_parameters: self.total_parameters,
        };
        let tensors = self.spelling.shown(self.tensors.to_vec());
        let files = options.layout.weight_files(&tensors, &weights);
        Target { tensors, files }
    }

    /// The model as the readers of `target` want it.
    ///
    /// # Errors
    /// When the target has no names for the family, or none for one of the tensors.
    pub fn written(
        &self,
        target: &TargetNames,
        options: &Options,
        notes: &mut Vec<Note>,
    ) -> Result<Target> {
        let written = self.renamed(target)?;
        notes.extend(
            written
                .left
                .iter()
                .map(|(name, why)| Note::remark(format!("{name} is left out: {why}"))),
        );
        if let Some(first) = written.zeros.first() {
            notes.push(Note::remark(format!(
                "{} tensors of zeros like {} are added: the source has none, and the readers of --names {} want them",
                written.zeros.len(), first.name, target.name
            )));
        }
        let items = self.items(target, written)?;
        items.iter().try_for_each(Item::check)?;
        let files = self.files(target, options, &items, notes)?;
        Ok(Target {
            tensors: shown(&items),
            files,
        })
    }

    fn renamed(&self, target: &TargetNames) -> Result<Written> {
        let (family, system) = match self.family {
            Some(family) => (Some(family), target.system(self.tables, family)),
            None => (None, None),
        };
        match (family, system) {
            (Some(family), Some(system)) => {
                let config = self.config.values();
                let mut written =
                    mapping::backward(system, family, config, target.spelling, self.tensors)?;
                if system.identity {
                    written.tensors = self.spelling.shown(written.tensors);
                }
                Ok(written)
            }
            (None, _) if target.name == "hf" => Ok(Written {
                tensors: self.tensors.to_vec(),
                ..Written::default()
            }),
            _ => Err(Error::Mapping(format!(
                "--names {} has no table for family {}; pass one that has it: {}",
                target.name,
                self.config.model_type(),
                known_targets(self.tables)
            ))),
        }
    }

    /// The tensors with what stands for missing ones, and with a tied head once more.
    fn items(&self, target: &TargetNames, written: Written) -> Result<Vec<Item>> {
        let mut items: Vec<Item> = written
            .tensors
            .into_iter()
            .map(|tensor| Item {
                name: tensor.name,
                content: Content::Tensor(tensor.tensor),
                sources: tensor.sources,
                shares: None,
            })
            .collect();
        let has = |items: &[Item], name: &str| items.iter().any(|item| *item.name == *name);
        if let Some((name, embedding)) = self.repeated(target)
            && !has(&items, &name)
        {
            let is_it = |item: &Item| {
                let tensor = item.tensor();
                tensor.is_some_and(|tensor| tensor.identity() == embedding.tensor.identity())
            };
            let shares = items.iter().position(is_it);
            items.push(Item {
                name,
                content: Content::Tensor(embedding.tensor.clone()),
                sources: embedding.sources.clone(),
                shares,
            });
        }
        for zeros in written.zeros {
            let shape = Shape::new(&[zeros.rows]);
            let shape = shape.ok_or_else(|| {
                Error::Mapping(format!("{} would have {} rows", zeros.name, zeros.rows))
            })?;
            items.push(Item {
                name: zeros.name.into(),
                content: Content::Zeros(Dtype::F32, shape),
                sources: Default::default(),
                shares: None,
            });
        }
        Ok(items)
    }

    /// The name of a tied head, where the target repeats it, and the embedding.
    fn repeated(&self, target: &TargetNames) -> Option<(Arc<str>, &MappedTensor)> {
        let tied = self.tied?;
        let name = match (&target.tied, target.name.as_str()) {
            (Some(name), _) => Arc::from(&**name),
            (None, "hf") => Arc::from(&*tied.name),
            (None, _) => return None,
        };
        let embedding = self
            .tensors
            .iter()
            .find(|tensor| *tensor.name == *tied.to)?;
        Some((name, embedding))
    }

    fn files(
        &self,
        target: &TargetNames,
        options: &Options,
        items: &[Item],
        notes: &mut Vec<Note>,
    ) -> Result<Vec<VirtualFile>> {
        let (Split::AtMost(limit) | Split::AsStored { or_at_most: limit }) = options.split;
        let mut files = match (options.layout, target.name.as_str()) {
            (OutputFormat::Dcp, _) => {
                check_chunks(items, options.chunk_size)?;
                output::dcp_files(
                    items,
                    &Dcp {
                        root: &target.root,
                        chunk_size: options.chunk_size,
                        file_size: limit,
                    },
                )
            }
            (_, "hf") => output::torch_shards(items, limit, self.total_parameters),
            (_, name) => vec![output::torch_file(
                file_name(name),
                items,
                &target.file_root,
            )],
        };
        if target.name == "lingua" && options.layout == OutputFormat::Dcp {
            let consolidated = output::torch_file(file_name("lingua"), items, &target.file_root);
            files.push(consolidated.below("consolidated"));
        }
        let attributes = files.first().map(VirtualFile::attributes);
        let dtype = items.first().map(Item::dtype);
        if let Some(params) = self.params(target, dtype, notes) {
            files.extend(params_files(&params, target, options, attributes));
        }
        Ok(files)
    }

    /// The params.json that the target's own code wants beside the weights.
    fn params(
        &self,
        target: &TargetNames,
        dtype: Option<Dtype>,
        notes: &mut Vec<Note>,
    ) -> Option<Map<String, Value>> {
        let config: &Config = self.config.values();
        let made = match target.name.as_str() {
            "meta" => params::meta(config),
            "lingua" => params::lingua(config, dtype?),
            _ => return None,
        };
        match made {
            Ok(made) => {
                notes.extend(made.note.map(Note::warning));
                Some(made.values)
            }
            Err(reason) => {
                notes.push(Note::warning(format!("params.json is not shown: {reason}")));
                None
            }
        }
    }
}

fn params_files(
    params: &Map<String, Value>,
    target: &TargetNames,
    options: &Options,
    attributes: Option<Attributes>,
) -> Vec<VirtualFile> {
    let file = || output::inline_file(params::NAME, output::python_json(params), attributes);
    match (target.name.as_str(), options.layout) {
        ("lingua", OutputFormat::Dcp) => vec![file(), file().below("consolidated")],
        _ => vec![file()],
    }
}

/// The one file of a target that has no shards.
fn file_name(target: &str) -> &'static str {
    match target {
        "meta" => "consolidated.00.pth",
        "lingua" => "consolidated.pth",
        _ => "model.pt",
    }
}

fn check_chunks(items: &[Item], chunk_size: u64) -> Result<()> {
    let chunks = |item: &Item| item.bytes() / chunk_size.max(1) + 1;
    let count: u64 = items.iter().map(chunks).sum();
    match count <= MOST_CHUNKS {
        true => Ok(()),
        false => Err(Error::Mapping(format!(
            "--chunk-size {chunk_size} makes more than {MOST_CHUNKS} chunks; pass a larger one"
        ))),
    }
}

/// The tensors under the names that the target gives them, below its root.
fn shown(items: &[Item]) -> Vec<MappedTensor> {
    let mapped = |item: &Item| {
        Some(MappedTensor {
            name: item.name.clone(),
            tensor: item.tensor()?.clone(),
            sources: item.sources.clone(),
        })
    };
    items.iter().filter_map(mapped).collect()
}
