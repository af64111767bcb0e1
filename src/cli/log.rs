//! `ckptfs log`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::mount_log::{last_log, lines, processes};
use super::output;
use crate::error::Error;
use crate::mount::{exists, located, mounts};

/// Print what the mount on a mount point has logged, or the last one that was there
#[derive(Debug, Args)]
pub struct Arguments {
    /// Where the view is, or was, mounted
    mountpoint: PathBuf,
}

/// The canonical path of a mount point that was removed meanwhile, as that of `exec` is.
fn former(path: &Path) -> Option<PathBuf> {
    let path = std::path::absolute(path).ok()?;
    let above = path.ancestors().find(|above| above.exists())?;
    let removed = path.strip_prefix(above).ok()?;
    let is_removed = removed.components().next().is_some();
    is_removed.then(|| Some(above.canonicalize().ok()?.join(removed)))?
}

pub fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let path = &arguments.mountpoint;
    let is_gone = exists(path).is_ok_and(|is_there| !is_there);
    let former = is_gone.then(|| former(path)).flatten();
    let point = former.map_or_else(|| located(path), Ok)?;
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
