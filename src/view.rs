//! A checkpoint as the Hugging Face directory that it becomes: read, mapped, checked, laid out.

mod adapter;
mod combine;
mod compare;
mod computed;
mod config;
mod config_text;
mod copied;
mod copies;
mod declared;
mod dequantize;
mod detect_system;
mod dtype;
mod known_class;
mod known_family;
mod layers;
mod mapped;
mod merge;
mod names;
mod note;
mod options;
mod other_class;
mod output_format;
mod params;
mod quantize;
mod reading;
mod rounded;
mod shown;
mod side_files;
mod table;
mod target;
mod tied;
mod unknown_family;

use std::path::Path;

use crate::checkpoint::{Checkpoint, Opening, SideFile};
use crate::error::{Error, Result};
use crate::mapping::{Family, MappedTensor, Tables};
use crate::output;
use crate::run;

use computed::Stage;
use config::ConfigFile;
pub use note::Note;
pub use options::{DtypeChoice, MAX_SHARD_SIZE, MergedAdapter, Options};
pub use output_format::OutputFormat;
use reading::Mapped;
pub use shown::View;
use side_files::{CONFIG, side_files};
pub use table::{TableReport, check as check_table};
use target::{Model, Target};
pub use tied::Tied;

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
        let checkpoint = run::open(source, &opening)?;
        let options = &options.of(&checkpoint);
        let view = match options.adapter || checkpoint.is_only_adapter() && options.merge.is_empty()
        {
            true => adapter::view(checkpoint, options),
            false => model(checkpoint, source, options),
        };
        view.map_err(at_source)
    }
}

fn model(mut checkpoint: Checkpoint, source: &Path, options: &Options) -> Result<View> {
    options.check_weights()?;
    let tables = Tables::load(options.mapping.as_deref())?;
    let target = options.layout.target(options.names.as_deref(), &tables)?;
    let mut side_files = side_files(&checkpoint, options.config_from.as_deref())?;
    let mut config = ConfigFile::find(&checkpoint, &side_files, &tables, options)?;
    computed::dequantize(&mut checkpoint, &mut side_files, &mut config, options)?;
    let family = config.family(&tables, options);
    let evidence = evidence(&checkpoint);
    let mut notes = Note::all_of(&checkpoint);
    let dtype = config.dtype_of(options.dtype)?;
    rounded::prefer(&mut checkpoint, dtype, family, &mut notes)?;
    let Mapped {
        system: table,
        outcome,
        tied,
        entries,
        spelling,
    } = mapped::map(
        &mut checkpoint,
        &tables,
        family,
        &mut config,
        options,
        &mut notes,
    )?;
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
        open: &View::open,
    };
    let mut tied = tied.into_iter();
    let mut head = tied.next();
    let tensors = stage.compute(tensors, &mut config, &mut head)?;
    notes.extend(stage.note()?);
    let model = Model {
        tables: &tables,
        family,
        config: &config,
        tensors: &tensors,
        tied: head.as_ref(),
        spelling,
        total_parameters: parameters(&tensors, family),
    };
    let Target { tensors, mut files } = match target {
        Some(target) => model.written(target, options, &mut notes)?,
        None => model.in_directory(options),
    };
    files.extend(config.file(&tensors));
    let others = { side_files.into_iter() }.filter(|file| file.path != CONFIG);
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

/// Evidence of the system: the layout's files, and how it spells its names.
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

/// Counts the parameters as `total_parameters` of the index does.
fn parameters(tensors: &[MappedTensor], family: Option<&Family>) -> u64 {
    let is_buffer =
        |tensor: &&MappedTensor| family.is_some_and(|family| family.is_buffer(&tensor.name));
    let all = tensors.iter().filter(|tensor| !is_buffer(tensor));
    all.map(|tensor| tensor.tensor.shape().elements()).sum()
}
