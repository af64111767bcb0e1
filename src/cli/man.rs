//! `ckptfs man`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Command, CommandFactory};

use super::CommandLine;

/// Write a man page for each subcommand to a directory, made where it is missing
#[derive(Debug, Args)]
pub struct Arguments {
    directory: PathBuf,
}

pub fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let directory = &arguments.directory;
    crate::mount::check_source(directory)?;
    let made = std::fs::create_dir_all(directory);
    made.with_context(|| directory.display().to_string())?;
    let mut command = CommandLine::command().disable_help_subcommand(true);
    command.build();
    let written = clap_mangen::generate_to(with_usage(command), directory);
    written.with_context(|| directory.display().to_string())?;
    Ok(ExitCode::SUCCESS)
}

/// With the synopsis that `--help` shows: the page's own would list every option, and none with its value.
fn with_usage(mut command: Command) -> Command {
    let usage = command.render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ").to_owned();
    command.override_usage(usage).mut_subcommands(with_usage)
}
