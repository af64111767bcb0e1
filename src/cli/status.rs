//! `ckptfs status`.

use std::fmt::{self, Display, Formatter};
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::inspect::print;
use crate::mount::{Mount, mounts};
use crate::text::{one_line, quoted};

/// List what is mounted where
#[derive(Debug, Args)]
pub struct Arguments {
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    print(&Status(mounts()?), arguments.json)?;
    Ok(ExitCode::SUCCESS)
}

#[derive(Debug, Serialize)]
struct Status(Vec<Mount>);

impl Display for Status {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return writeln!(f, "nothing is mounted");
        }
        self.0
            .iter()
            .try_for_each(|mount| writeln!(f, "{}", one_line(&said(mount))))
    }
}

fn said(mount: &Mount) -> String {
    let (point, source) = (mount.point.display(), &mount.source);
    match mount.is_served {
        true => format!("{source} is mounted at {point}"),
        false => format!(
            "{source} was mounted at {point}, its process died; ckptfs umount {} removes it",
            quoted(&mount.point)
        ),
    }
}
