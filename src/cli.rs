//! The command line: one file per subcommand, options defined once, errors in one line.

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgAction, Parser, Subcommand, ValueEnum};
use tracing::Level;
use tracing_subscriber::filter::{LevelFilter, Targets, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

mod allocator;
mod completions;
mod config_from;
mod daemon;
mod diff;
mod exec;
mod export;
mod helper;
mod inherited;
mod inspect;
mod log;
mod logging;
mod man;
mod mapping;
mod mount;
mod mount_log;
mod mounter;
mod opened;
mod options;
mod output;
mod place;
mod progress;
#[cfg(feature = "remote")]
mod serve;
mod size;
mod status;
mod stop;
mod systemd;
mod umount;
mod variables;
mod verify;
mod view;
mod weighted;

use crate::error::Error;
use crate::text::one_line;
use inherited::Inherited;
use logging::Log;

pub use opened::Opened;

const EXIT_STATUS: &str = "\
Exit status:
  0  success
  1  the checkpoint is refused, or verify or diff found a fault or a difference
  2  wrong usage
  3  the mount point, FUSE, an export's destination, a log or standard output cannot be used
  4  a source file cannot be read

CKPTFS_DTYPE=bf16 stands for --dtype bf16, and so with nearly all options (docs/options.md).
-v and -vv, or RUST_LOG=info and RUST_LOG=debug, show more on standard error.";

const WRONG_USAGE: u8 = 2;

/// Beginning of the targets of our own log lines.
const OWN: &str = env!("CARGO_CRATE_NAME");

/// The version, the commit and the optional parts of this build, such as `0.1.0 (2fa1c2e) +remote`.
const VERSION: &str = env!("CKPTFS_VERSION");

/// Shows a training checkpoint as the Hugging Face directory that its users need, without converting it
#[derive(Debug, Parser)]
#[command(version = VERSION, after_help = EXIT_STATUS)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
    /// How log lines are written
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text, value_name = "FORMAT")]
    log_format: LogFormat,
    /// More log lines: -v information, -vv every step; RUST_LOG says it for each part
    #[arg(short, long, global = true, action = ArgAction::Count, conflicts_with = "quiet")]
    verbose: u8,
    /// Errors alone, no warnings
    #[arg(short, long, global = true)]
    quiet: bool,
}

impl CommandLine {
    /// The least level of log lines that flags ask for.
    fn level(&self) -> Option<&'static str> {
        let is_debugged = matches!(&self.command, Command::Mount(mount) if mount.debug);
        match self.verbose {
            _ if self.quiet => Some("error"),
            _ if is_debugged => Some("debug"),
            0 => None,
            1 => Some("info"),
            _ => Some("debug"),
        }
    }
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
    Mounter(mounter::Arguments),
    Exec(exec::Arguments),
    Export(export::Arguments),
    Verify(verify::Arguments),
    Diff(diff::Arguments),
    Inspect(inspect::Arguments),
    #[cfg(feature = "remote")]
    Serve(serve::Arguments),
    Umount(umount::Arguments),
    Status(status::Arguments),
    Log(log::Arguments),
    Mapping(mapping::Arguments),
    Completions(completions::Arguments),
    Man(man::Arguments),
}

/// How long the end of a mount waits for a log that takes no lines.
const LOG_PATIENCE: Duration = Duration::from_secs(1);

/// Runs the process' command line. `ignores_pipe` tells whether the process was started with SIGPIPE ignored.
pub fn run(ignores_pipe: bool) -> ExitCode {
    let inherited = Inherited::replace(ignores_pipe);
    allocator::share_one_arena();
    if helper::is_called() {
        return helper::run().unwrap_or_else(|error| {
            let (line, code) = failure(&error);
            complain(&line);
            code
        });
    }
    let line = parse(&std::env::args_os().collect::<Vec<_>>());
    let log = Log::new(line.command.serves());
    start_log(line.log_format, line.level(), &log);
    let finish = Finish(&log);
    let code = line.command.run(&inherited, &log);
    let code = code.unwrap_or_else(|error| {
        let (line, code) = failure(&error);
        log.push(complaint(&line).as_bytes());
        code
    });
    drop(finish);
    code
}

/// Has the log written out at the end, a panic's too.
struct Finish<'l>(&'l Log);

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        if self.0.finish(LOG_PATIENCE) {
            self.0.copy_to(None, None);
        }
    }
}

impl Command {
    /// Whether others depend on the end of the command.
    fn serves(&self) -> bool {
        #[cfg(feature = "remote")]
        if matches!(self, Self::Serve(_)) {
            return true;
        }
        matches!(self, Self::Mount(_) | Self::Exec(_))
    }

    /// The options of a command that reads a source.
    fn view_options(&self) -> Option<&view::ViewOptions> {
        match self {
            Self::Mount(arguments) => Some(arguments.view()),
            Self::Exec(arguments) => Some(arguments.view()),
            Self::Export(arguments) => Some(arguments.view()),
            Self::Verify(arguments) => Some(arguments.view()),
            Self::Diff(arguments) => Some(arguments.view()),
            Self::Inspect(arguments) => Some(arguments.view()),
            #[cfg(feature = "remote")]
            Self::Serve(arguments) => Some(arguments.view()),
            _ => None,
        }
    }

    fn run(self, inherited: &Inherited, log: &Log) -> anyhow::Result<ExitCode> {
        if let Some(view) = self.view_options() {
            view.stores.apply();
        }
        if !matches!(self, Self::Completions(_) | Self::Man(_)) {
            exec::clear_abandoned();
        }
        match self {
            Self::Mount(arguments) => mount::run(arguments, log),
            Self::Mounter(arguments) => mounter::run(arguments),
            Self::Exec(arguments) => exec::run(arguments, inherited, log),
            Self::Export(arguments) => export::run(arguments),
            Self::Verify(arguments) => verify::run(arguments),
            Self::Diff(arguments) => diff::run(arguments),
            Self::Inspect(arguments) => inspect::run(arguments),
            #[cfg(feature = "remote")]
            Self::Serve(arguments) => serve::run(arguments),
            Self::Umount(arguments) => umount::run(arguments),
            Self::Status(arguments) => status::run(arguments),
            Self::Log(arguments) => log::run(arguments),
            Self::Mapping(arguments) => mapping::run(arguments),
            Self::Completions(arguments) => completions::run(arguments),
            Self::Man(arguments) => man::run(arguments),
        }
    }
}

/// The command line. What `-o` says of a mount becomes flags, and these are checked like all others.
fn parse(words: &[OsString]) -> CommandLine {
    let line: CommandLine = variables::parse(words).unwrap_or_else(|error| error.exit());
    match &line.command {
        Command::Mount(mount) if !mount.mount_options.is_empty() => {
            let words = options::spelled_out(words, &mount.mount_options);
            variables::parse(&words).unwrap_or_else(|error| refuse_options(&error))
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

/// The line and the exit status of a failure.
fn failure(error: &anyhow::Error) -> (String, ExitCode) {
    let (line, code) = match error.downcast_ref::<Error>() {
        Some(error) => (error.to_string(), error.exit_code()),
        None => (format!("{error:#}"), WRONG_USAGE),
    };
    (line, ExitCode::from(code))
}

/// The one line of a failure.
fn complaint(line: &str) -> String {
    format!("ckptfs: {}\n", one_line(line))
}

/// Writes the line of a failure before there is a log. Without standard error, the exit status alone tells.
fn complain(line: &str) {
    io::stderr().write_all(complaint(line).as_bytes()).ok();
}

/// Warnings to `log`, more or less by flags or RUST_LOG, and counts that were asked for. Colours would also reach a log file. A panic is a
/// line of the log too: written in the usual way, it would wait for standard error.
fn start_log(format: LogFormat, level: Option<&str>, log: &Log) {
    let writer = log.clone();
    let wanted = wanted_lines(level, std::env::var("RUST_LOG").ok());
    let log = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::TRACE)
        .with_writer(writer)
        .log_internal_errors(false)
        .with_ansi(false);
    // Libraries log the URLs and headers of requests, which hold keys and tokens, whatever RUST_LOG says.
    let own = filter_fn(|line| line.target().starts_with(OWN));
    match format {
        LogFormat::Text => log.finish().with(own).with(wanted).init(),
        LogFormat::Json => log.json().finish().with(own).with(wanted).init(),
    }
    std::panic::set_hook(Box::new(|panic| {
        tracing::error!("a bug in ckptfs: {}", one_line(&panic.to_string()));
    }));
}

/// The lines that a flag asks for, else RUST_LOG. That often stands for all programs of a machine: it takes away neither the errors,
/// by which `status` and `log` tell of failed reads, nor the counts that `--stats` asks for.
fn wanted_lines(level: Option<&str>, said: Option<String>) -> Targets {
    let wanted = level.map(str::to_owned).or(said);
    let wanted = wanted.filter(|wanted| !wanted.is_empty());
    let wanted: Option<Targets> = wanted.and_then(|wanted| wanted.parse().ok());
    let wanted = wanted.unwrap_or_else(|| Targets::new().with_default(Level::WARN));
    let wanted = match wanted.would_enable(OWN, &Level::ERROR) {
        true => wanted,
        false => wanted.with_target(OWN, Level::ERROR),
    };
    wanted.with_target("ckptfs::stats", Level::INFO)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn errors_and_counts_are_logged_whatever_rust_log_says() {
        for said in [
            None,
            Some(""),
            Some("off"),
            Some("tokenizers=debug"),
            Some("=,="),
        ] {
            let wanted = wanted_lines(None, said.map(str::to_owned));
            assert!(
                wanted.would_enable("ckptfs::fs::errors", &Level::ERROR),
                "{said:?}"
            );
            assert!(
                wanted.would_enable("ckptfs::stats", &Level::INFO),
                "{said:?}"
            );
            assert!(!wanted.would_enable("ckptfs::fs", &Level::INFO), "{said:?}");
        }
        let wanted = wanted_lines(Some("error"), Some("debug".to_owned()));
        assert!(!wanted.would_enable("ckptfs::fs", &Level::WARN));
    }

    #[test]
    fn the_options_are_consistent() {
        super::CommandLine::command().debug_assert();
    }
}
