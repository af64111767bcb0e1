//! `ckptfs mapping check`.

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::{config_from, output, place, view};
use crate::checkpoint::{Checkpoint, Opening, State, normalise, unwrapped};
use crate::error::{Error, Result};
use crate::mapping::{Family, System, known};
use crate::output::Split;
use crate::run;
use crate::text::one_line;
use crate::view::{MAX_SHARD_SIZE, Options, TableReport, View, check_table};

/// Exit status where a table has faults.
const FAULTY: u8 = 1;

/// Most names without a rule that are listed; the rest is counted.
const SHOWN: usize = 20;

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
    let report = check_table(&check.file, &check.config_from);
    let report = report.map_err(|error| unreadable(&check.file, error))?;
    let mut lines = report.faults.clone();
    if lines.is_empty() {
        let (family, count) = (&report.family, report.required);
        lines.push(format!("family {family}: {count} tensors, each has a rule"));
    }
    lines.extend(report.one_way.iter().cloned());
    print(&check.file, &lines)?;
    let judge = Judge {
        check: &check,
        report: &report,
    };
    let unread = match &check.source {
        Some(source) => judge.judge(&view::single(source)?)?,
        None => 0,
    };
    Ok(match report.faults.is_empty() && unread == 0 {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(FAULTY),
    })
}

fn print(of: &Path, lines: &[String]) -> Result<()> {
    let of = of.display();
    { lines.iter() }
        .try_for_each(|line| output::print(&format!("{}\n", one_line(&format!("{of}: {line}")))))
}

/// The error of a FILE that is no text, or the same error.
fn unreadable(file: &Path, error: Error) -> Error {
    let reason = match &error {
        Error::Io { file: of, source } if of == file => match source.kind() {
            io::ErrorKind::IsADirectory => "is a folder",
            io::ErrorKind::InvalidData => "is no text in UTF-8",
            _ => return error,
        },
        _ => return error,
    };
    Error::checkpoint(file, format!("{reason}; name a table in TOML as FILE"))
}

/// Judges the names of a checkpoint by the table.
struct Judge<'c> {
    check: &'c Check,
    report: &'c TableReport,
}

impl Judge<'_> {
    fn family(&self) -> Option<&Family> {
        self.report.tables.family(&self.report.family)
    }

    /// Prints the names of `source` that have no rule, or that each has one. Returns how many have none.
    fn judge(&self, source: &Path) -> Result<usize> {
        let unread = self.unread(source);
        let unread = unread.map_err(|error| at_source(source, error))?;
        if let Some((system, names)) = unread.as_ref().filter(|(_, names)| !names.is_empty()) {
            print(source, &self.said_of(system, names))?;
            return Ok(names.len());
        }
        let own = unread.map(|(system, _)| system.name.clone());
        let options = Options {
            mapping: Some(self.check.file.clone()),
            config_from: Some(self.check.config_from.clone()),
            system: self.check.system.clone().or(own.clone()),
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
        let (system, family) = (&system.name, &self.report.family);
        let of = format!("system {system} has no rule in family {family} for");
        let shown = names.iter().take(SHOWN);
        let mut lines: Vec<String> = shown.map(|name| format!("{of} {name}")).collect();
        if let more @ 1.. = names.len().saturating_sub(SHOWN) {
            lines.push(format!("{of} {more} more"));
        }
        lines
    }

    /// The system that knows most names of `source`, and the names that it has no rule for. `None` where a view alone can tell.
    fn unread(&self, source: &Path) -> Result<Option<(&System, Vec<String>)>> {
        let (config, wanted) = (&self.report.config, self.check.system.as_deref());
        // Quantized weights have other names than the family's until a view shows them as floats.
        let Some(family) = self.family().filter(|_| !config.is_quantized()) else {
            return Ok(None);
        };
        let systems = self.systems(family, wanted);
        if systems.is_empty() {
            return Ok(None);
        }
        let opening = Opening {
            system: wanted,
            ..Opening::default()
        };
        let checkpoint = run::open(source, &opening)?;
        let mut all = Vec::new();
        for system in systems {
            let names = model_names(&checkpoint, system, family)?;
            let unread = system.without_rule(family, config, &names)?;
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
            .report
            .tables
            .own_systems_of(family)
            .filter(is_meant)
            .collect();
        match wanted {
            Some(_) if own.is_empty() => self
                .report
                .tables
                .systems_of(family)
                .filter(is_meant)
                .collect(),
            _ => own,
        }
    }
}

/// The names of the model in a checkpoint, below what wrappers and training loops put around them.
fn model_names(checkpoint: &Checkpoint, system: &System, family: &Family) -> Result<Vec<String>> {
    let state = State {
        tensors: checkpoint.tensors.clone(),
        dictionaries: Cow::Borrowed(&checkpoint.dictionaries),
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

fn at_source(source: &Path, error: Error) -> Error {
    match error {
        Error::Mapping(reason) => Error::checkpoint(source, reason),
        error => error,
    }
}
