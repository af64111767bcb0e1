//! `ckptfs man`.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Command, CommandFactory};

use super::CommandLine;
use crate::error::Error;

/// Write a man page for each subcommand to a directory, made where it is missing
#[derive(Debug, Args)]
pub struct Arguments {
    directory: PathBuf,
}

pub fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let directory = &arguments.directory;
    crate::mount::check_target(directory)?;
    let unwritable = |error: io::Error| Error::unwritable(directory, &error);
    std::fs::create_dir_all(directory).map_err(unwritable)?;
    let mut command = CommandLine::command().disable_help_subcommand(true);
    command.build();
    clap_mangen::generate_to(with_usage(command), directory).map_err(unwritable)?;
    Ok(ExitCode::SUCCESS)
}

/// With the synopsis that `--help` shows: the page's own would list every option, and none with its value.
fn with_usage(mut command: Command) -> Command {
    let usage = command.render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ").to_owned();
    command.override_usage(usage).mut_subcommands(with_usage)
}
