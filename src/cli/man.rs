//! `ckptfs man`: for those who make packages.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, CommandFactory};

use super::CommandLine;

/// Write a man page for each subcommand to a directory, made where it is missing
#[derive(Debug, Args)]
pub struct Arguments {
    directory: PathBuf,
}

pub fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let directory = &arguments.directory;
    let made = std::fs::create_dir_all(directory);
    made.with_context(|| directory.display().to_string())?;
    let written = clap_mangen::generate_to(CommandLine::command(), directory);
    written.with_context(|| directory.display().to_string())?;
    Ok(ExitCode::SUCCESS)
}
