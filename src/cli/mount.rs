//! `ckptfs mount`.

use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::{daemon, size, view};
use crate::fs::one_line;
use crate::mount::{Mounted, Options, StopSignals};
use crate::repo::VirtualFile;

/// Mount a checkpoint; stays in the foreground until Ctrl-C
#[derive(Debug, Args)]
pub struct Arguments {
    /// The checkpoint: a directory or a file
    source: PathBuf,
    /// An empty directory
    mountpoint: PathBuf,
    /// Return once the mount answers, and serve it in the background
    #[arg(long)]
    daemon: bool,
    /// Where the background process appends its log lines
    #[arg(long, value_name = "FILE", requires = "daemon")]
    log_file: Option<PathBuf>,
    /// Let other users read what the modes of the source allow them
    #[arg(long)]
    allow_other: bool,
    /// Threads that answer requests [default: number of cores, 2 to 16]
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
    #[command(flatten)]
    view: view::ViewOptions,
}

pub fn run(mut arguments: Arguments) -> anyhow::Result<ExitCode> {
    if arguments.daemon && !daemon::is_background() {
        return daemon::launch();
    }
    let background = arguments
        .daemon
        .then(|| daemon::Background::enter(arguments.log_file.as_deref()))
        .transpose()?;
    arguments.make_absolute()?;
    let opened = view::open(&arguments.source, &arguments.view)?;
    let ready = readiness(&arguments, opened.tensors.len(), &opened.files);
    let signals = StopSignals::take()?;
    let mounted = mount(&arguments, opened.files)?;
    writeln!(io::stdout(), "{}", one_line(&ready))?;
    background.map_or(Ok(()), daemon::Background::detach)?;
    mounted.wait_for_signal(signals)?;
    Ok(ExitCode::SUCCESS)
}

impl Arguments {
    /// A background process has no place in the file system; a source file may be opened again long after.
    fn make_absolute(&mut self) -> io::Result<()> {
        let paths = [&mut self.source, &mut self.mountpoint];
        for path in paths.into_iter().chain(&mut self.view.config_from) {
            *path = std::path::absolute(&*path)?;
        }
        Ok(())
    }
}

fn mount(arguments: &Arguments, files: Vec<VirtualFile>) -> crate::error::Result<Mounted> {
    let options = Options {
        allow_other: arguments.allow_other,
        threads: arguments.threads,
        ..Options::new(&arguments.source)
    };
    crate::mount::mount(files, &arguments.mountpoint, &options)
}

fn readiness(arguments: &Arguments, tensors: usize, files: &[VirtualFile]) -> String {
    let Arguments {
        source, mountpoint, ..
    } = arguments;
    let bytes = size::shown(files.iter().map(VirtualFile::size).sum());
    let end = match arguments.daemon {
        true => format!("ckptfs umount {} unmounts", mountpoint.display()),
        false => "Ctrl-C unmounts".to_owned(),
    };
    let (source, mountpoint) = (source.display(), mountpoint.display());
    format!("{source} is mounted at {mountpoint} ({tensors} tensors, {bytes}); {end}")
}
