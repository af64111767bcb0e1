//! `ckptfs mapping check`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::{config_from, output, place, view};
use crate::output::Split;
use crate::text::one_line;
use crate::view::{MAX_SHARD_SIZE, Options, View, check_table};

/// Exit status where a table has faults.
const FAULTY: u8 = 1;

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
}

pub fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let Command::Check(check) = arguments.command;
    let paths = [&check.file, &check.config_from];
    paths
        .into_iter()
        .try_for_each(|path| crate::mount::check_source(path))?;
    let report = check_table(&check.file, &check.config_from)?;
    let file = check.file.display();
    let mut lines: Vec<String> = report
        .faults
        .iter()
        .map(|fault| format!("{file}: {fault}"))
        .collect();
    if let (Some(source), true) = (&check.source, report.faults.is_empty()) {
        lines.push(said_of(&view::single(source)?, &check)?);
    } else if report.faults.is_empty() {
        let (family, count) = (&report.family, report.tensors);
        lines.push(format!(
            "{file}: family {family}: {count} tensors, each has a rule"
        ));
    }
    let one_way = report.one_way.iter();
    lines.extend(one_way.map(|rule| format!("{file}: {rule}")));
    for line in &lines {
        output::print(&format!("{}\n", one_line(line)))?;
    }
    Ok(match report.faults.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(FAULTY),
    })
}

fn said_of(source: &std::path::Path, check: &Check) -> anyhow::Result<String> {
    let options = Options {
        mapping: Some(check.file.clone()),
        config_from: Some(check.config_from.clone()),
        split: Split::AtMost(MAX_SHARD_SIZE),
        ..Options::default()
    };
    let view = View::open(source, &options)?;
    let (source, system, count) = (source.display(), &view.system, view.tensors.len());
    Ok(format!(
        "{source}: system {system}: every name has a rule, {count} tensors"
    ))
}
