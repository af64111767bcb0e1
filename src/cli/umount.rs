//! `ckptfs umount`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use nix::unistd::geteuid;

use crate::error::{Error, Result};
use crate::mount::{Descriptor, When, mounts, unmount};
use crate::text::one_line;

/// Unmount views; also removes what a killed ckptfs left behind
#[derive(Debug, Args)]
#[command(visible_alias = "unmount")]
pub struct Arguments {
    /// Where the views are mounted
    #[arg(value_name = "MOUNTPOINT", required_unless_present = "all")]
    mountpoints: Vec<PathBuf>,
    /// Unmount all views of this user
    #[arg(long, conflicts_with = "mountpoints")]
    all: bool,
    /// Hide the view now, even while it is in use; it ends with its last reader
    #[arg(long)]
    lazy: bool,
}

pub fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let when = if arguments.lazy {
        When::Lazily
    } else {
        When::Unused
    };
    let points = match arguments.all {
        true => own_points()?,
        false => arguments.mountpoints,
    };
    let results = points.iter().map(|point| end_view(point, when));
    report(results.filter_map(Result::err).collect())
}

fn end_view(point: &Path, when: When) -> Result<()> {
    if Descriptor::named_by(point)?.is_some() {
        let reason = "stands for a mount of another process, the mounter, which alone unmounts it";
        return Err(Error::mount(point, reason));
    }
    unmount(point, when)
}

fn own_points() -> Result<Vec<PathBuf>> {
    let user = geteuid().as_raw();
    let own = mounts()?
        .into_iter()
        .filter(|mount| mount.owner.is_none_or(|owner| owner == user));
    Ok(own.map(|mount| mount.point).collect())
}

/// One view that stays keeps none of the others. The last failure is the command's.
fn report(mut failures: Vec<Error>) -> anyhow::Result<ExitCode> {
    let last = failures.pop();
    for failure in failures {
        tracing::error!("{}", one_line(&failure.to_string()));
    }
    last.map_or(Ok(ExitCode::SUCCESS), |failure| Err(failure.into()))
}
