//! `ckptfs mapping check`.

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::{config_from, output, place, view};
use crate::checkpoint::{self, Checkpoint, Opening, State, foreign, normalise, unwrapped};
use crate::error::{Error, Result};
use crate::mapping::{Config, Family, System, Tables, expected, known};
use crate::output::Split;
use crate::run;
use crate::source::SourceFile;
use crate::source::place::{is_file, is_folder};
use crate::text::one_line;
use crate::view::{MAX_SHARD_SIZE, Options, View, check_table};

/// Exit status where a table has faults.
const FAULTY: u8 = 1;

/// Most names without a rule that are listed; the rest is counted.
const SHOWN: usize = 20;

/// Hint for a FILE that is no table.
const HINT: &str = "name a table in TOML as FILE";

/// Python's words for numbers that JSON lacks.
const NO_NUMBERS: [&str; 3] = ["-Infinity", "Infinity", "NaN"];

/// Work on a mapping table of your own
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Check(Check),
}

/// Say which tensors of a model no rule of the table makes, which rules --names cannot run backwards, and which names of a
/// checkpoint have no rule
#[derive(Debug, Args)]
struct Check {
    /// The table, in TOML
    file: PathBuf,
    /// A checkpoint whose names the table should know
    #[arg(value_parser = place::source())]
    source: Option<PathBuf>,
    /// The model's Hugging Face folder, or its config.json
    #[arg(long, value_name = "DIR|ORG/MODEL", value_parser = config_from::folder())]
    config_from: PathBuf,
    /// The system that wrote SOURCE, instead of the one that FILE defines for the family
    #[arg(long, value_name = "NAME", requires = "source")]
    system: Option<String>,
}

pub fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let Command::Check(check) = arguments.command;
    let paths = [&check.file, &check.config_from];
    paths
        .into_iter()
        .try_for_each(|path| crate::mount::check_source(path))?;
    check_file(&check.file)?;
    let report = check_table(&check.file, &check.config_from);
    let report = report.map_err(|error| unreadable(&check.file, error))?;
    let model = Model::load(&check, report.family)?;
    let mut faults = report.faults;
    faults.extend(model.faults());
    let mut lines = faults.clone();
    if faults.is_empty() {
        let (family, count) = (&model.family, model.required()?);
        lines.push(format!("family {family}: {count} tensors, each has a rule"));
    }
    lines.extend(report.one_way);
    print(&check.file, &lines)?;
    let unread = match &check.source {
        Some(source) => model.judge(&view::single(source)?, &check)?,
        None => 0,
    };
    Ok(match faults.is_empty() && unread == 0 {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(FAULTY),
    })
}

fn print(of: &Path, lines: &[String]) -> Result<()> {
    let of = of.display();
    { lines.iter() }
        .try_for_each(|line| output::print(&format!("{}\n", one_line(&format!("{of}: {line}")))))
}

/// Refuses a table that is no regular file: it is read more than once.
fn check_file(file: &Path) -> Result<()> {
    if is_folder(file) {
        return Err(Error::checkpoint(file, format!("is a folder; {HINT}")));
    }
    // A path that leads nowhere is refused with a better message by those who read it.
    let is_special = file.exists() && !is_file(file);
    match is_special {
        true => Err(Error::checkpoint(
            file,
            format!("is no regular file, and is read more than once; {HINT}"),
        )),
        false => Ok(()),
    }
}

/// The error of a table that is no text, or the same error.
fn unreadable(file: &Path, error: Error) -> Error {
    match error {
        Error::Io { file: of, source }
            if of == file && source.kind() == io::ErrorKind::InvalidData =>
        {
            Error::checkpoint(file, format!("is no text in UTF-8; {HINT}"))
        }
        error => error,
    }
}

/// The model of a config.json, and the tables that know its family.
struct Model {
    tables: Tables,
    config: Config,
    family: String,
}

impl Model {
    fn load(check: &Check, family: String) -> Result<Self> {
        let files = checkpoint::side_files_in(&check.config_from)?;
        let file = files.iter().find(|own| own.path == "config.json");
        let config = file.map(|own| read_config(&own.file)).transpose()?;
        Ok(Self {
            tables: Tables::load(Some(&check.file))?,
            config: config.unwrap_or_default(),
            family,
        })
    }

    fn family(&self) -> Option<&Family> {
        self.tables.family(&self.family)
    }

    fn faults(&self) -> Vec<String> {
        let faults = |family| self.tables.lint_model(family, &self.config);
        self.family().map_or_else(Vec::new, faults)
    }

    /// Counts the tensors that the model must have. Those that it may have need no rule.
    fn required(&self) -> Result<usize> {
        let listed = self
            .family()
            .map(|family| expected(family, &self.config, 0));
        let listed = listed.transpose()?.unwrap_or_default();
        Ok(listed.iter().filter(|tensor| tensor.required).count())
    }

    /// Prints the names of `source` that have no rule, or that each has one. Returns how many have none.
    fn judge(&self, source: &Path, check: &Check) -> Result<usize> {
        let unread = self.unread(source, check);
        let unread = unread.map_err(|error| at_source(source, error))?;
        if let Some((system, names)) = unread.as_ref().filter(|(_, names)| !names.is_empty()) {
            print(source, &self.said_of(system, names))?;
            return Ok(names.len());
        }
        let own = unread.map(|(system, _)| system.name.clone());
        let options = Options {
            mapping: Some(check.file.clone()),
            config_from: Some(check.config_from.clone()),
            system: check.system.clone().or(own.clone()),
            split: Split::AtMost(MAX_SHARD_SIZE),
            ..Options::default()
        };
        let view = View::open(source, &options)?;
        let (system, count) = (own.unwrap_or(view.system), view.tensors.len());
        print(
            source,
            &[format!(
                "system {system}: every name has a rule, {count} tensors"
            )],
        )?;
        Ok(0)
    }

    /// One line for each name without a rule, up to a number.
    fn said_of(&self, system: &System, names: &[String]) -> Vec<String> {
        let (system, family) = (&system.name, &self.family);
        let of = format!("system {system} has no rule in family {family} for");
        let shown = names.iter().take(SHOWN);
        let mut lines: Vec<String> = shown.map(|name| format!("{of} {name}")).collect();
        if let more @ 1.. = names.len().saturating_sub(SHOWN) {
            lines.push(format!("{of} {more} more"));
        }
        lines
    }

    /// The system that knows most names of `source`, and the names that it has no rule for. `None` where a view alone can tell.
    fn unread(&self, source: &Path, check: &Check) -> Result<Option<(&System, Vec<String>)>> {
        // Quantized weights have other names than the family's until a view shows them as floats.
        let Some(family) = self.family().filter(|_| !self.config.is_quantized()) else {
            return Ok(None);
        };
        let systems = self.systems(family, check.system.as_deref());
        if systems.is_empty() {
            return Ok(None);
        }
        let opening = Opening {
            system: check.system.as_deref(),
            ..Opening::default()
        };
        let checkpoint = run::open(source, &opening)?;
        let mut all = Vec::new();
        for system in systems {
            let names = model_names(&checkpoint, system, family)?;
            let unread = system.without_rule(family, &self.config, &names)?;
            all.push((system, unread.into_iter().map(str::to_owned).collect()));
        }
        Ok(all
            .into_iter()
            .min_by_key(|(_, unread): &(_, Vec<String>)| unread.len()))
    }

    /// The systems that may judge names: those of FILE, or those of the name `wanted`. Names of the family's own need a view.
    fn systems<'t>(&'t self, family: &'t Family, wanted: Option<&str>) -> Vec<&'t System> {
        let is_meant =
            |system: &&System| !system.identity && wanted.is_none_or(|name| system.name == name);
        let own: Vec<&System> = self
            .tables
            .own_systems_of(family)
            .filter(is_meant)
            .collect();
        match wanted {
            Some(_) if own.is_empty() => self.tables.systems_of(family).filter(is_meant).collect(),
            _ => own,
        }
    }
}

/// The names of the model in a checkpoint, below what wrappers and training loops put around them.
fn model_names(checkpoint: &Checkpoint, system: &System, family: &Family) -> Result<Vec<String>> {
    let state = State {
        tensors: checkpoint.tensors.clone(),
        dictionaries: &checkpoint.dictionaries,
        entry: None,
        keeps_roots: false,
    };
    let knows = |names: &[Cow<'_, str>], _: bool| known(system, family, names);
    let found = normalise(state, Some(&knows))?;
    let names = found.model.iter();
    Ok(names
        .map(|tensor| unwrapped(&tensor.name).into_owned())
        .collect())
}

/// The values of a config.json that `check_table` has read, and so is small enough.
fn read_config(file: &SourceFile) -> Result<Config> {
    let mut bytes = vec![0; file.size() as usize];
    file.read_exact_at(&mut bytes, 0)?;
    // Inside of texts the words may be replaced too: rules ask for numbers alone.
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let plain = NO_NUMBERS
        .iter()
        .fold(text, |text, word| text.replace(word, "null"));
    let values = serde_json::from_str(&plain);
    values
        .map(Config::new)
        .map_err(|error| foreign::no_json(file.path(), &bytes, &error))
}

fn at_source(source: &Path, error: Error) -> Error {
    match error {
        Error::Mapping(reason) => Error::checkpoint(source, reason),
        error => error,
    }
}
