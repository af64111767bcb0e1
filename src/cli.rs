//! The command line: one file per subcommand, options defined once, errors in one line.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

mod daemon;
mod exec;
mod export;
mod inspect;
mod mount;
mod progress;
mod size;
mod umount;
mod view;

use crate::error::Error;
use crate::fs::one_line;

const EXIT_STATUS: &str = "\
Exit status:
  0  success
  1  the checkpoint is refused
  2  wrong usage
  3  the mount point, FUSE or an export's destination cannot be used
  4  a source file cannot be read

RUST_LOG=info or RUST_LOG=debug shows more on standard error.";

const WRONG_USAGE: u8 = 2;

/// Shows a training checkpoint as the Hugging Face directory that its users need, without converting it
#[derive(Debug, Parser)]
#[command(version, after_help = EXIT_STATUS)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Mount(mount::Arguments),
    Exec(exec::Arguments),
    Export(export::Arguments),
    Inspect(inspect::Arguments),
    Umount(umount::Arguments),
}

/// Runs the process' command line.
pub fn run() -> ExitCode {
    let command = CommandLine::parse().command;
    start_log();
    let result = match command {
        Command::Mount(arguments) => mount::run(arguments),
        Command::Exec(arguments) => exec::run(arguments),
        Command::Export(arguments) => export::run(arguments),
        Command::Inspect(arguments) => inspect::run(arguments),
        Command::Umount(arguments) => umount::run(arguments),
    };
    match result {
        Ok(code) => code,
        Err(error) => fail(&error),
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    let (line, code) = match error.downcast_ref::<Error>() {
        Some(error) => (error.to_string(), error.exit_code()),
        None => (format!("{error:#}"), WRONG_USAGE),
    };
    complain(&line);
    ExitCode::from(code)
}

/// The one line of a failure. Without standard error, the exit status alone tells.
fn complain(line: &str) {
    writeln!(io::stderr(), "ckptfs: {}", one_line(line)).ok();
}

/// Warnings to standard error, more or less by RUST_LOG. Colours would also reach a log file.
fn start_log() {
    let wanted = EnvFilter::try_from_default_env();
    tracing_subscriber::fmt()
        .with_env_filter(wanted.unwrap_or_else(|_| EnvFilter::new("warn,fuser=error")))
        .with_writer(io::stderr)
        .with_ansi(false)
        .init();
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_options_are_consistent() {
        super::CommandLine::command().debug_assert();
    }
}
