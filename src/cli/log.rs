//! `ckptfs log`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::mount_log::{last_log, lines, processes};
use super::output;
use crate::error::Error;
use crate::mount::{located, mounts};

/// Print what the mount on a mount point has logged, or the last one that was there
#[derive(Debug, Args)]
pub struct Arguments {
    /// Where the view is, or was, mounted
    mountpoint: PathBuf,
}

pub fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let path = &arguments.mountpoint;
    let point = located(path)?;
    let mount = mounts()?
        .into_iter()
        .rev()
        .find(|mount| mount.point == point);
    let owner = mount.and_then(|mount| mount.owner);
    let mut serving = processes().into_iter();
    let serving = serving.find(|process| process.serves(&point, owner));
    let Some(log) = serving
        .map(|process| process.opened)
        .or_else(|| last_log(&point))
    else {
        let reason = "no mount of this user has logged a line here; ckptfs status lists the mounts";
        return Err(Error::mount(path, reason).into());
    };
    output::print(&lines(&log).map_err(|error| Error::io(&log, error))?)?;
    Ok(ExitCode::SUCCESS)
}
