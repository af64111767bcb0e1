//! `ckptfs umount`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::error::Error;
use crate::mount::{Descriptor, When, unmount};

/// Unmount a view; also removes what a killed ckptfs left behind
#[derive(Debug, Args)]
pub struct Arguments {
    /// Where the view is mounted
    mountpoint: PathBuf,
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
    if Descriptor::named_by(&arguments.mountpoint).is_some() {
        let reason = "stands for a mount of another process, the mounter, which alone unmounts it";
        return Err(Error::mount(&arguments.mountpoint, reason).into());
    }
    unmount(&arguments.mountpoint, when)?;
    Ok(ExitCode::SUCCESS)
}
