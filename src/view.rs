//! A checkpoint as the Hugging Face directory that it becomes: read, mapped, checked, laid out.

mod adapter;
mod combine;
mod compare;
mod computed;
mod config;
mod copies;
mod declared;
mod dequantize;
mod detect_system;
mod dtype;
mod known_class;
mod merge;
mod names;
mod options;
mod params;
mod quantize;
mod rounded;
mod table;
mod target;
mod tied;
mod unknown_family;

use std::path::Path;

use serde::Serialize;

use crate::checkpoint::{self, Checkpoint, Entry, Opening, SideFile};
use crate::error::{Error, Result};
use crate::mapping::{self, Classes, Dropped, Family, MappedTensor, Outcome, System, Tables};
use crate::output::{self, Naming, VirtualFile, Weights};

use computed::Stage;
use config::ConfigFile;
use names::families;
pub use options::{DtypeChoice, MAX_SHARD_SIZE, MergedAdapter, Options, OutputFormat};
pub use table::check as check_table;
use target::Model;
pub use tied::Tied;

/// The tensors and files that a mount shows, and their origin.
#[derive(Debug)]
pub struct View {
    /// The system that wrote the checkpoint, such as `torchtitan`.
    pub system: String,
    /// Why it is taken for that system's.
    pub evidence: String,
    /// `model_type` of config.json.
    pub family: String,
    /// In the order in which they are sharded.
    pub tensors: Vec<MappedTensor>,
    pub dropped: Vec<Dropped>,
    pub tied: Vec<Tied>,
    /// The entries of the training state, where it has several.
    pub entries: Vec<Entry>,
    /// Warnings and remarks about this view.
    pub notes: Vec<Note>,
    pub files: Vec<VirtualFile>,
}

/// Files that a tokenizer is read from (transformers 5.23.0, tokenization_utils_base.py and tokenization_mistral_common.py).
const TOKENIZERS: [&str; 9] = [
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer.tiktoken",
    "tiktoken.model",
    "tekken.json",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
];

/// A remark on how a view came to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Note {
    /// Whether a user may have to act.
    pub is_warning: bool,
    pub text: String,
}

impl Note {
    fn remark(text: String) -> Self {
        let is_warning = false;
        Self { is_warning, text }
    }

    fn warning(text: String) -> Self {
        let is_warning = true;
        Self { is_warning, text }
    }
}

impl View {
    /// Opens a checkpoint without reading any weight, except to compare tied ones and to look for zeros where only zeros
    /// may be left out.
    ///
    /// # Errors
    /// Whatever is not understood, in one line.
    pub fn open(source: &Path, options: &Options) -> Result<Self> {
        let at_source = |error| match error {
            Error::Mapping(reason) => Error::checkpoint(source, reason),
            error => error,
        };
        options.check_system().map_err(at_source)?;
        let opening = Opening {
            system: options.system.as_deref(),
            accepts_rewritten: options.accepts_rewritten,
            budget: options.budget.clone(),
        };
        let checkpoint = checkpoint::open_with(source, &opening)?;
        let options = &options.of(&checkpoint);
        let view = match options.adapter || checkpoint.is_only_adapter() && options.merge.is_empty()
        {
            true => adapter::view(checkpoint, options),
            false => model(checkpoint, source, options),
        };
        view.map_err(at_source)
    }

    /// Whether the view has a config.json and no tokenizer beside it.
    pub fn lacks_tokenizer(&self) -> bool {
        let has = |name: &str| self.files.iter().any(|file| file.path() == name);
        has(config::NAME) && !TOKENIZERS.iter().any(|name| has(name))
    }

    /// Bytes of all weights.
    pub fn bytes(&self) -> u64 {
        self.tensors
            .iter()
            .map(|tensor| tensor.tensor.bytes())
            .sum()
    }
}

fn model(mut checkpoint: Checkpoint, source: &Path, options: &Options) -> Result<View> {
    options.check_weights()?;
    let tables = Tables::load(options.mapping.as_deref())?;
    let target = target::names_of(options, &tables)?;
    let mut side_files = side_files(&checkpoint, options)?;
    let mut config = ConfigFile::find(&checkpoint, &side_files, &tables, options)?;
    computed::dequantize(&mut checkpoint, &mut side_files, &mut config, options)?;
    let family = config.family(&tables, options);
    let evidence = evidence(&checkpoint);
    let mut notes = notes_of(&checkpoint);
    let dtype = options.dtype.resolve(&config)?;
    rounded::prefer(&mut checkpoint, dtype, family, &mut notes)?;
    let Mapped {
        system: table,
        outcome,
        tied,
        entries,
    } = match family {
        Some(family) => {
            let mapped = map(
                &checkpoint,
                &tables,
                family,
                &mut config,
                options,
                &mut notes,
            );
            mapped.map_err(|error| match error {
                Error::Mapping(_) if !tables.speaks_of(family) => {
                    let (tensors, said) = (&checkpoint.tensors, config.family_said());
                    families::contradicted(&tables, family, tensors, &said).unwrap_or(error)
                }
                other => other,
            })?
        }
        None => {
            if config.is_untyped()
                && let Some(error) = families::unsaid(&tables, &checkpoint.tensors)
            {
                return Err(error);
            }
            let classes = Classes::load();
            let groups = match config.values().is_quantized() {
                true => Vec::new(),
                false => known_class::candidates(&classes, &config),
            };
            let known = known_class::map(
                &mut checkpoint,
                &tables,
                &classes,
                &groups,
                &config,
                options,
                &mut notes,
            )?;
            match known {
                Some(known) => known,
                None => {
                    unknown_family::map(&mut checkpoint, &tables, &config, options, &mut notes)?
                }
            }
        }
    };
    check_system(options, &checkpoint, &table)?;
    notes.extend(config.note().map(Note::warning));
    notes.extend(declared::doubt(config.values(), &checkpoint, &tables).map(Note::warning));
    let tensors = dtype::cast(outcome.tensors, dtype, family)?;
    config.state_dtype(dtype.or(options.dequantize));
    let stage = Stage {
        source,
        checkpoint: &checkpoint,
        side_files: &side_files,
        tables: &tables,
        family,
        options,
    };
    let mut tied = tied.into_iter();
    let mut head = tied.next();
    let tensors = stage.compute(tensors, &mut config, &mut head)?;
    notes.extend(stage.note()?);
    let total_parameters = parameters(&tensors, family);
    let (tensors, mut files) = match target {
        Some(target) => {
            let model = Model {
                tables: &tables,
                family,
                config: &config,
                tensors: &tensors,
                tied: head.as_ref(),
                total_parameters,
            };
            let written = model.written(target, options, &mut notes)?;
            (written.tensors, written.files)
        }
        None => {
            let weights = Weights {
                naming: Naming::Model,
                units: mapping::units(family, &tensors),
                split: options.split,
                total_parameters,
            };
            let tensors = match family.is_some() && config.values().is_base() {
                true => names::without_base_prefix(tensors),
                false => tensors,
            };
            let files = options.layout.weight_files(&tensors, &weights);
            (tensors, files)
        }
    };
    files.extend(config.file(&tensors));
    let others = side_files
        .into_iter()
        .filter(|file| file.path != config::NAME);
    files.extend(others.map(|SideFile { path, file }| output::source_file(&path, file)));
    Ok(View {
        system: checkpoint.system_with(&table).to_owned(),
        evidence,
        family: config.model_type().to_owned(),
        tensors,
        dropped: outcome.dropped,
        tied: head.into_iter().chain(tied).collect(),
        entries,
        notes,
        files,
    })
}

fn notes_of(checkpoint: &Checkpoint) -> Vec<Note> {
    let remarks = checkpoint.notes.iter().cloned().map(Note::remark);
    let warnings = checkpoint.warnings.iter().cloned().map(Note::warning);
    warnings.chain(remarks).collect()
}

/// What was seen: the layout's files, and how the system spells its names.
fn evidence(checkpoint: &Checkpoint) -> String {
    let mut tensors = checkpoint.tensors.iter();
    let example = tensors.find(|tensor| tensor.name.contains("layers"));
    match example.or(checkpoint.tensors.first()) {
        Some(tensor) => format!(
            "{}, names like {}",
            checkpoint.layout.evidence(),
            tensor.name
        ),
        None => checkpoint.layout.evidence(),
    }
}

/// The side files of `--config-from`, then those of the source that it lacks.
fn side_files(checkpoint: &Checkpoint, options: &Options) -> Result<Vec<SideFile>> {
    let mut files = match &options.config_from {
        Some(path) => checkpoint::side_files_in(path)?,
        None => Vec::new(),
    };
    for file in &checkpoint.side_files {
        if !files.iter().any(|other| other.path == file.path) {
            files.push(file.clone());
        }
    }
    Ok(files)
}

/// The tensors of a model under Hugging Face's names.
struct Mapped {
    /// The name of the system's table.
    system: String,
    outcome: Outcome,
    tied: Vec<Tied>,
    entries: Vec<Entry>,
}

/// The tensors of a family that tables know, every one accounted for.
fn map(
    checkpoint: &Checkpoint,
    tables: &Tables,
    family: &Family,
    config: &mut ConfigFile,
    options: &Options,
    notes: &mut Vec<Note>,
) -> Result<Mapped> {
    let systems: Vec<&System> = tables.systems_of(family).collect();
    let tensors = &checkpoint.tensors;
    let chosen = detect_system::choose(
        &systems,
        family,
        tensors,
        options.system.as_deref(),
        options.entry.as_deref(),
        checkpoint,
    )?
    .ok_or_else(|| names::of_no_system(tables, family, tensors))?;
    let (system, sources) = (chosen.system, chosen.tensors);
    notes.extend(names::left_out(&chosen.state, options.keep_extra));
    config.infer(system, family, &sources)?;
    let applied = mapping::apply(system, family, config.values(), &sources);
    let mut outcome = applied.map_err(|error| config.explain(error))?;
    if !outcome.unknown.is_empty() {
        return Err(config.explain(names::unknown(tables, system, family, &outcome.unknown)));
    }
    copies::check(checkpoint, &sources, &outcome.tensors, notes)?;
    config.complete(family, &outcome.tensors)?;
    config.see_heads(family, &outcome.tensors);
    let tied = tied::settle(family, config.values(), &mut outcome, notes)?;
    let expected = mapping::expected(family, config.values(), outcome.tensors.len());
    let expected = expected.map_err(|error| config.explain(error))?;
    if let Some((found, promised)) = mapping::shortfall(&expected, &outcome.tensors) {
        checkpoint.check_share(found, promised)?;
    }
    let checked = mapping::check(family, config.values(), &expected, outcome.tensors);
    outcome.tensors = checked.map_err(|error| config.explain(error))?;
    for dropped in &outcome.dropped {
        note_dropped(dropped, notes)?;
    }
    if options.keep_extra {
        outcome.tensors.extend(names::extra(&chosen.state)?);
    }
    notes.extend(system.note.clone().map(Note::warning));
    Ok(Mapped {
        system: system.name.clone(),
        entries: chosen.state.entries(sources.len()),
        outcome,
        tied: tied.into_iter().collect(),
    })
}

fn note_dropped(dropped: &Dropped, notes: &mut Vec<Note>) -> Result<()> {
    let text = format!("{} is left out: {}", dropped.source.name, dropped.why);
    let mut parts = dropped.source.parts.iter().filter(|_| dropped.unless_zero);
    let is_zero = parts.try_fold(true, |zero, part| Ok(zero && compare::is_zero(part)?))?;
    notes.push(match is_zero {
        true => Note::remark(text),
        false => Note::warning(format!(
            "{text}; it is not zero, so the model will not compute what was trained"
        )),
    });
    Ok(())
}

/// Refuses a `--system` that is not the checkpoint's, which would otherwise be passed over in silence.
fn check_system(options: &Options, checkpoint: &Checkpoint, table: &str) -> Result<()> {
    let own = [
        table,
        checkpoint.layout.word(),
        checkpoint.system_with(table),
    ];
    match options.system.as_deref() {
        Some(wanted) if !own.contains(&wanted) => {
            let layout = checkpoint.layout.word();
            Err(Error::Mapping(format!(
                "--system {wanted}: the names are {table}'s, the files {layout}'s; leave it out, or pass one of these two"
            )))
        }
        _ => Ok(()),
    }
}

/// What `total_parameters` of the index counts.
fn parameters(tensors: &[MappedTensor], family: Option<&Family>) -> u64 {
    let is_buffer =
        |tensor: &&MappedTensor| family.is_some_and(|family| family.is_buffer(&tensor.name));
    let all = tensors.iter().filter(|tensor| !is_buffer(tensor));
    all.map(|tensor| tensor.tensor.shape().elements()).sum()
}
