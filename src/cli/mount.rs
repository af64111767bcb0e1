//! `ckptfs mount`.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;

use super::logging::{Log, Syslog};
use super::{allocator, daemon, mount_log, options, output, place, size, systemd, view};
use crate::error::{Error, Result};
use crate::mount::{Descriptor, Mounted, Options, StopSignals, absolute, affordable_cache};
use crate::mountinfo;
use crate::read::Reader;
use crate::run::Run;
use crate::text::{one_line, quoted};
use crate::view::{Options as ViewOptions, View};

/// Mount a checkpoint, or a run of them; stays in the foreground until Ctrl-C
#[derive(Debug, Args)]
pub struct Arguments {
    /// The checkpoint: a directory or a file. Or a directory of checkpoints: each is shown once its save is complete
    #[arg(value_parser = place::source())]
    source: PathBuf,
    /// An empty directory; or /dev/fd/N, or a socket, of a process that has mounted already: `ckptfs mounter`
    mountpoint: PathBuf,
    /// Return once the mount answers, and serve it in the background
    #[arg(long)]
    daemon: bool,
    /// Stay in the foreground, which is the default
    #[arg(short, long, conflicts_with = "daemon")]
    foreground: bool,
    /// Stay in the foreground and log every step
    #[arg(short, long, conflicts_with = "daemon")]
    pub debug: bool,
    /// Make the mount point, and the directories above it, where it is not there
    #[arg(long)]
    mkdir: bool,
    /// Where the background process appends its log lines, beside the log that ckptfs log prints
    #[arg(long, value_name = "FILE", requires = "daemon")]
    log_file: Option<PathBuf>,
    /// Let other users read what all source files and the directories above them let them read
    #[arg(long)]
    allow_other: bool,
    /// Let the kernel read files that equal a source file by itself: as fast as the source, but a source that changes
    /// while such a file is open shows through
    #[arg(long)]
    passthrough: bool,
    /// Log counts of requests, bytes, source reads and errors at the end; SIGUSR1 asks for them at any time
    #[arg(long)]
    stats: bool,
    /// Threads that answer requests [default: number of cores, 8 to 16]
    #[arg(long, value_name = "N", value_parser = options::count)]
    threads: Option<NonZeroUsize>,
    /// Memory for produced blocks of transposed tensors
    #[arg(long, value_name = "SIZE", default_value = "128MiB", value_parser = size::parse)]
    cache_size: u64,
    /// The flags above as mount(8) writes them, such as allow_other,dtype=bf16
    #[arg(short = 'o', value_name = "OPTION,...")]
    pub mount_options: Vec<OsString>,
    #[command(flatten)]
    view: view::ViewOptions,
}

pub fn run(mut arguments: Arguments, log: &Log) -> anyhow::Result<ExitCode> {
    let is_handed_in = Descriptor::named_by(&arguments.mountpoint)?.is_some();
    if arguments.daemon && is_handed_in {
        let reason = "a descriptor ends with the process that it was handed to; leave --daemon out";
        return Err(Error::mount(&arguments.mountpoint, reason).into());
    }
    if arguments.passthrough {
        place::check_is_local(&arguments.source, "--passthrough")?;
    }
    if arguments.mkdir {
        make_directory(&arguments.mountpoint)?;
    }
    if arguments.daemon && !daemon::is_background() {
        return daemon::launch(&arguments.mountpoint);
    }
    let background = arguments
        .daemon
        .then(|| daemon::Background::enter(arguments.log_file.as_deref()))
        .transpose()?;
    arguments.make_absolute()?;
    arguments.source = view::pinned(&arguments.source)?;
    let options = arguments.options();
    crate::mount::check(&arguments.mountpoint, &options)?;
    view::check_places(&arguments.view)?;
    let shown = Shown::at(&arguments)?;
    let ready = arguments.readiness(&shown, is_handed_in);
    let signals = StopSignals::take()?;
    let mounted = shown.mount(&arguments, &options)?;
    log.copy_to(
        mount_log::of(&mounted, &arguments.source),
        arguments.system_log(),
    );
    // What was said until here belongs to the terminal, and stands before the line that the mount is ready.
    log.finish(super::LOG_PATIENCE);
    output::announce(&format!("{}\n", one_line(&ready)))?;
    systemd::ready();
    background.map_or(Ok(()), daemon::Background::detach)?;
    allocator::give_back();
    let counters = mounted.counters();
    let ended = mounted.wait_for_signal(signals);
    if arguments.stats {
        counters.log();
    }
    ended?;
    Ok(ExitCode::SUCCESS)
}

fn make_directory(path: &Path) -> Result<()> {
    crate::mount::check_target(path)?;
    // A dead mount is there, but no directory; mounting takes it away.
    if path.symlink_metadata().is_ok() || mountinfo::at(path).is_some() {
        return Ok(());
    }
    std::fs::create_dir_all(path).map_err(|error| {
        let reason = format!("{error}; name a mount point that this user may make");
        Error::mount(path, reason)
    })
}

impl Arguments {
    pub fn view(&self) -> &view::ViewOptions {
        &self.view
    }

    /// A background process has no place in the file system; a source file may be opened again long after.
    fn make_absolute(&mut self) -> anyhow::Result<()> {
        let paths = [&mut self.source, &mut self.mountpoint];
        for path in paths.into_iter().chain(&mut self.view.config_from) {
            *path = absolute(path).map_err(|error| Error::io(path, error))?;
        }
        Ok(())
    }

    /// The system's log, for a background process that has no other place for its lines.
    fn system_log(&self) -> Option<Syslog> {
        let is_wanted = self.daemon && self.log_file.is_none();
        is_wanted.then(|| Syslog::connect().ok())?
    }

    fn options(&self) -> Options {
        Options {
            allow_other: self.allow_other,
            passthrough: self.passthrough,
            threads: self.threads,
            reader: Arc::new(Reader::new(affordable_cache(self.cache_size))),
            ..Options::new(&self.source)
        }
    }

    fn readiness(&self, shown: &Shown, is_handed_in: bool) -> String {
        let (source, mountpoint) = (self.source.display(), self.mountpoint.display());
        let end = match self.daemon {
            _ if is_handed_in => "its mounter unmounts".to_owned(),
            true => format!("ckptfs umount {} unmounts", quoted(&self.mountpoint)),
            false => "Ctrl-C unmounts".to_owned(),
        };
        let said = shown.said();
        format!("{source} is mounted at {mountpoint} ({said}); {end}")
    }
}

/// A source that is to be mounted.
enum Shown {
    Checkpoint(View),
    Run(Run, Box<ViewOptions>),
    /// A base with each save of a run of adapters, which stand in this place among the adapters to merge.
    Adapters(Run, usize, Box<ViewOptions>),
}

impl Shown {
    fn at(arguments: &Arguments) -> Result<Self> {
        let source = &arguments.source;
        let run = match Run::find(source)? {
            None => Run::awaited(source)?,
            found => found.map(|run| run.check().map(|()| run)).transpose()?,
        };
        match (run, arguments.view.run_of_adapters()?) {
            (Some(_), Some(_)) => Err(Error::Mapping(format!(
                "{}: a run, and so is an adapter; name one save of one of them",
                source.display()
            ))),
            (None, Some((number, adapters))) => {
                view::check(&arguments.view)?;
                let options = ViewOptions::from(&arguments.view);
                let run = adapters.opened_as(options.accepts_rewritten, options.budget.clone());
                Ok(Self::Adapters(run, number, Box::new(options)))
            }
            (Some(run), None) => {
                view::check(&arguments.view)?;
                let options = ViewOptions::from(&arguments.view);
                let run = run.opened_as(options.accepts_rewritten, options.budget.clone());
                Ok(Self::Run(run, Box::new(options)))
            }
            (None, None) => view::open(source, &arguments.view).map(Self::Checkpoint),
        }
    }

    fn mount(self, arguments: &Arguments, options: &Options) -> Result<Mounted> {
        let point = &arguments.mountpoint;
        match self {
            Self::Checkpoint(view) => crate::mount::mount(view.files, point, options),
            Self::Adapters(run, number, wanted) => {
                let source = arguments.source.clone();
                let open = move |path: &Path| {
                    Ok(view::open_with(&source, &wanted.with_adapter(number, path))?.files)
                };
                crate::mount::mount_run(run, Box::new(open), point, options)
            }
            Self::Run(run, wanted) => {
                let open = move |path: &Path| Ok(view::open_with(path, &wanted)?.files);
                crate::mount::mount_run(run, Box::new(open), point, options)
            }
        }
    }

    fn said(&self) -> String {
        match self {
            Self::Checkpoint(view) => {
                let bytes = size::shown(view.bytes());
                let lacks = match view.lacks_tokenizer() {
                    true => ", no tokenizer: --config-from adds one",
                    false => "",
                };
                format!("{} tensors, {bytes}{lacks}", view.tensors.len())
            }
            Self::Run(run, _) | Self::Adapters(run, ..) => match run.latest() {
                Ok(Some(save)) => format!("a run, the latest save is {}", save.name),
                _ if run.has_a_save() => "a run of checkpoints without numbers".to_owned(),
                _ => "a run without a complete save yet".to_owned(),
            },
        }
    }
}
