//! The command line: one file per subcommand, options defined once, errors in one line.

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use tracing_subscriber::EnvFilter;

mod allocator;
mod completions;
mod daemon;
mod exec;
mod export;
mod helper;
mod inspect;
mod man;
mod mount;
mod options;
mod output;
mod progress;
mod size;
mod status;
mod systemd;
mod umount;
mod verify;
mod view;

use crate::error::Error;
use crate::text::one_line;

const EXIT_STATUS: &str = "\
Exit status:
  0  success
  1  the checkpoint is refused, or verify found a fault or a difference
  2  wrong usage
  3  the mount point, FUSE, an export's destination or standard output cannot be used
  4  a source file cannot be read

RUST_LOG=info or RUST_LOG=debug shows more on standard error.";

const WRONG_USAGE: u8 = 2;

/// Shows a training checkpoint as the Hugging Face directory that its users need, without converting it
#[derive(Debug, Parser)]
#[command(version, after_help = EXIT_STATUS)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
    /// How log lines are written
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text, value_name = "FORMAT")]
    log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    Text,
    /// One object in each line
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    Mount(mount::Arguments),
    Exec(exec::Arguments),
    Export(export::Arguments),
    Verify(verify::Arguments),
    Inspect(inspect::Arguments),
    Umount(umount::Arguments),
    Status(status::Arguments),
    Completions(completions::Arguments),
    Man(man::Arguments),
}

/// Runs the process' command line.
pub fn run() -> ExitCode {
    allocator::share_one_arena();
    if helper::is_called() {
        return helper::run().unwrap_or_else(|error| fail(&error));
    }
    let line = parse(&std::env::args_os().collect::<Vec<_>>());
    start_log(line.log_format);
    let result = match line.command {
        Command::Mount(arguments) => mount::run(arguments),
        Command::Exec(arguments) => exec::run(arguments),
        Command::Export(arguments) => export::run(arguments),
        Command::Verify(arguments) => verify::run(arguments),
        Command::Inspect(arguments) => inspect::run(arguments),
        Command::Umount(arguments) => umount::run(arguments),
        Command::Status(arguments) => status::run(arguments),
        Command::Completions(arguments) => completions::run(arguments),
        Command::Man(arguments) => man::run(arguments),
    };
    match result {
        Ok(code) => code,
        Err(error) => fail(&error),
    }
}

/// The command line. What `-o` says of a mount becomes flags, and these are checked like all others.
fn parse(words: &[OsString]) -> CommandLine {
    let line = CommandLine::parse_from(words);
    match &line.command {
        Command::Mount(mount) if !mount.mount_options.is_empty() => {
            let words = options::spelled_out(words, &mount.mount_options);
            CommandLine::try_parse_from(words).unwrap_or_else(|error| refuse_options(&error))
        }
        _ => line,
    }
}

/// mount(8) and the journal want one line.
fn refuse_options(error: &clap::Error) -> ! {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    complain(&format!("-o: {}", line.trim_start_matches("error: ")));
    std::process::exit(WRONG_USAGE.into())
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
fn start_log(format: LogFormat) {
    let wanted = EnvFilter::try_from_default_env();
    let log = tracing_subscriber::fmt()
        .with_env_filter(wanted.unwrap_or_else(|_| EnvFilter::new("warn,ckptfs::stats=info")))
        .with_writer(io::stderr)
        // A line that cannot be written is lost: to say so on standard error would panic where that is what cannot be written.
        .log_internal_errors(false)
        .with_ansi(false);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_options_are_consistent() {
        super::CommandLine::command().debug_assert();
    }
}
