//! `ckptfs serve`.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::{allocator, daemon, output, place, size, systemd, view};
use crate::error::Error;
use crate::mount::StopSignals;
use crate::run::Run;
use crate::serve::{Library, Options, Served, Server};
use crate::source::remote;
use crate::text::one_line;
use crate::view::Options as WantedView;

/// Serve a checkpoint, or a run of them, over HTTP: as a repository of the Hugging Face hub, and as the bucket s3://view
#[derive(Debug, Args)]
pub struct Arguments {
    /// The checkpoint: a directory, a file or a URL. Or a directory of checkpoints: each save is a revision
    #[arg(value_parser = place::source())]
    source: PathBuf,
    /// Where to listen; port 0 picks a free one
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8000", value_parser = address)]
    listen: SocketAddr,
    /// The one name of the repository, as ORG/NAME [default: any]
    #[arg(long, value_name = "ORG/NAME")]
    repo: Option<String>,
    /// The token that clients must show, as HF_TOKEN or as AWS_ACCESS_KEY_ID; needed where other machines can reach the address. The
    /// variable CKPTFS_SERVE_TOKEN keeps it out of the list of processes
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
    /// Return once the server answers, and serve in the background
    #[arg(long)]
    daemon: bool,
    /// Where the background process appends its log lines
    #[arg(long, value_name = "FILE", requires = "daemon")]
    log_file: Option<PathBuf>,
    #[command(flatten)]
    view: view::ViewOptions,
}

pub fn run(mut arguments: Arguments) -> anyhow::Result<ExitCode> {
    if arguments.daemon && !daemon::is_background() {
        return daemon::launch_server(&arguments.source);
    }
    let background = arguments
        .daemon
        .then(|| daemon::Background::enter(arguments.log_file.as_deref()))
        .transpose()?;
    arguments.source = view::pinned(&arguments.source)?;
    let (library, said) = arguments.library()?;
    let signals = StopSignals::take()?;
    let runtime = remote::runtime()?;
    let options = Options {
        listen: arguments.listen,
        token: arguments
            .token
            .clone()
            .or_else(|| std::env::var("CKPTFS_SERVE_TOKEN").ok()),
        repository: arguments.repo.clone(),
    };
    let server = Server::start(library, &options, &runtime)?;
    let address = server.address();
    announce(&arguments, address);
    output::announce(&arguments.readiness(address, &said))?;
    systemd::ready();
    background.map_or(Ok(()), daemon::Background::detach)?;
    allocator::give_back();
    signals.wait();
    server.stop();
    Ok(ExitCode::SUCCESS)
}

fn address(word: &str) -> Result<SocketAddr, String> {
    let addresses = word.to_socket_addrs();
    let mut addresses =
        addresses.map_err(|_| "write HOST:PORT, such as 127.0.0.1:8000".to_owned())?;
    addresses
        .next()
        .ok_or_else(|| "names no address".to_owned())
}

/// Lets `status` find the server. Without that it serves all the same.
fn announce(arguments: &Arguments, address: SocketAddr) {
    let served = Served {
        source: arguments.source.display().to_string(),
        address,
        process: std::process::id(),
    };
    if let Err(error) = served.announce() {
        tracing::info!("status will not list this server: {error}");
    }
}

impl Arguments {
    pub fn view(&self) -> &view::ViewOptions {
        &self.view
    }

    /// The library that is served, and a word on it.
    fn library(&self) -> anyhow::Result<(Library, String)> {
        let found = match Run::find(&self.source)? {
            None => Run::awaited(&self.source)?,
            found => found.map(|run| run.check().map(|()| run)).transpose()?,
        };
        let Some(run) = found else {
            let view = view::open(&self.source, &self.view)?;
            let said = format!(
                "{} tensors, {}",
                view.tensors.len(),
                size::shown(view.bytes())
            );
            return Ok((Library::of(view.files)?, said));
        };
        view::check(&self.view)?;
        let wanted = WantedView::from(&self.view);
        let run = run.opened_as(wanted.accepts_rewritten, wanted.budget.clone());
        let open = move |path: &Path| Ok::<_, Error>(view::open_with(path, &wanted)?.files);
        Ok((Library::of_run(run, Box::new(open)), "a run".to_owned()))
    }

    fn readiness(&self, address: SocketAddr, said: &str) -> String {
        let source = self.source.display().to_string();
        let end = match self.daemon {
            true => format!("kill {} ends", std::process::id()),
            false => "Ctrl-C ends".to_owned(),
        };
        let first = format!("{source} is served at http://{address} ({said}); {end}");
        format!(
            "{}\nHF_ENDPOINT=http://{address}\nAWS_ENDPOINT_URL=http://{address}\n",
            one_line(&first)
        )
    }
}
