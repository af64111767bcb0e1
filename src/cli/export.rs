//! `ckptfs export`.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::{Args, ValueEnum};

use super::progress::Bar;
use super::{options, output, place, size, stop, view};
use crate::export::{Exported, Options, export};
use crate::output::VirtualFile;
use crate::parallel;
use crate::text::one_line;
use crate::view::View;

/// Write what a mount would show to a new directory; continues after an interruption
#[derive(Debug, Args)]
#[command(visible_alias = "convert", mut_arg("max_shard_size", |arg| arg.help(SHARDS)))]
pub struct Arguments {
    /// The checkpoint: a directory or a file; RUN/latest is the latest save
    #[arg(value_parser = place::source())]
    source: PathBuf,
    /// The directory to make; it must not exist yet
    destination: PathBuf,
    /// Only list the files and their sizes
    #[arg(long)]
    dry_run: bool,
    /// Also write SHA256SUMS, for sha256sum -c
    #[arg(long)]
    checksum: bool,
    /// auto: share the source's blocks where the filesystem can (XFS, btrfs), behind a longer header
    #[arg(long, value_enum, default_value_t = Reflink::Never, value_name = "WHEN")]
    reflink: Reflink,
    /// Threads that write [default: number of cores, at most 8]
    #[arg(long, value_name = "N", value_parser = options::count)]
    threads: Option<NonZeroUsize>,
    #[command(flatten)]
    view: view::ViewOptions,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Reflink {
    Never,
    Auto,
}

const SHARDS: &str =
    "Largest shard, such as 5GB or 5GiB [default: 5GB; with --reflink, the shards of the source]";

/// Words in which an export that was stopped says how it goes on.
const STOPPED: &str = "stopped; run the same command again to go on where it was";

impl Arguments {
    pub fn view(&self) -> &view::ViewOptions {
        &self.view
    }
}

pub fn run(mut arguments: Arguments) -> anyhow::Result<ExitCode> {
    let start = Instant::now();
    if arguments.reflink == Reflink::Auto {
        place::check_is_local(&arguments.source, "--reflink")?;
        arguments.view.keeps_shards = true;
    }
    let source = view::single(&arguments.source)?;
    crate::mount::check_target(&arguments.destination)?;
    let view = view::open(&source, &arguments.view)?;
    if arguments.dry_run {
        output::print(&planned(&view, &arguments.destination))?;
        return Ok(ExitCode::SUCCESS);
    }
    let options = Options {
        threads: arguments.threads.unwrap_or_else(parallel::usual_threads),
        checksum: arguments.checksum,
        reflink: arguments.reflink == Reflink::Auto,
    };
    let destination = &arguments.destination;
    stop::say_on_signal(STOPPED)?;
    let exported = export(view.files, &source, destination, &options, &Bar::default())?;
    let said = said(&exported, start.elapsed().as_secs_f64());
    let line = format!("{}: {said}", destination.display());
    output::print(&format!("{}\n", one_line(&line)))?;
    Ok(ExitCode::SUCCESS)
}

/// The files of an export, one on each line, and their sum.
fn planned(view: &View, destination: &Path) -> String {
    let line = |file: &VirtualFile| format!("{:>10}  {}\n", size::shown(file.size()), file.path());
    let lines: String = view.files.iter().map(line).collect();
    let sum = size::shown(view.files.iter().map(VirtualFile::size).sum());
    let said = format!(
        "{}: {} files, {sum}; nothing was written",
        destination.display(),
        view.files.len()
    );
    format!("{lines}{}\n", one_line(&said))
}

fn said(exported: &Exported, seconds: f64) -> String {
    let Exported {
        files,
        bytes,
        shared,
        resumed,
    } = *exported;
    let mut said = format!("{files} files, {} in {seconds:.1} s", size::shown(bytes));
    for (part, what) in [
        (shared, "shared with the source"),
        (resumed, "written before"),
    ] {
        if part > 0 {
            said += &format!(", {} of them {what}", size::shown(part));
        }
    }
    said
}
