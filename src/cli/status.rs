//! `ckptfs status`.

use std::fmt::{self, Display, Formatter};
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::inspect::print;
use super::mount_log::{MountProcess, last_error, last_log, processes};
use crate::mount::{Mount, mounts};
#[cfg(feature = "remote")]
use crate::serve::{Served, served};
use crate::text::{one_line, quoted};

/// List what is mounted where, by which process, and the last error of each mount; and what is served
#[derive(Debug, Args)]
pub struct Arguments {
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let processes = processes();
    let rows = mounts()?
        .into_iter()
        .map(|mount| Shown::Mount(Row::of(mount, &processes)));
    #[cfg(feature = "remote")]
    let rows = rows.chain(served().into_iter().map(Shown::Server));
    print(&Status(rows.collect()), arguments.json)?;
    Ok(ExitCode::SUCCESS)
}

/// A mount, or a server of `ckptfs serve`.
#[derive(Debug, Serialize)]
struct Status(Vec<Shown>);

/// A mount, or a server of `ckptfs serve`.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Shown {
    Mount(Row),
    #[cfg(feature = "remote")]
    Server(Served),
}

impl Shown {
    fn said(&self) -> String {
        match self {
            Self::Mount(row) => row.said(),
            #[cfg(feature = "remote")]
            Self::Server(Served {
                source,
                address,
                process,
            }) => format!(
                "{source} is served at http://{address} by process {process}; kill {process} ends it"
            ),
        }
    }
}

/// A mount, with what its log tells.
#[derive(Debug, Serialize)]
struct Row {
    #[serde(flatten)]
    mount: Mount,
    /// `None` where the process died, or may not be looked into by this user.
    pid: Option<u32>,
    last_error: Option<String>,
    log: Option<String>,
}

impl Row {
    fn of(mount: Mount, processes: &[MountProcess]) -> Self {
        let mut serving = processes.iter();
        let serving = serving.find(|process| process.serves(&mount.point, mount.owner));
        // A process that is dying has its log open still, or no longer.
        let left = last_log(&mount.point).filter(|_| !mount.is_served);
        let opened = serving.and_then(|process| last_error(&process.opened));
        let log = serving
            .map(|process| process.log.clone())
            .or_else(|| left.clone());
        Self {
            pid: serving
                .map(|process| process.pid)
                .filter(|_| mount.is_served),
            last_error: opened.or_else(|| last_error(&left?)),
            log: log.map(|log| log.display().to_string()),
            mount,
        }
    }

    fn said(&self) -> String {
        let Mount { point, source, .. } = &self.mount;
        let (shown, point) = (point.display(), quoted(point));
        let mut said = match (self.mount.is_served, self.pid) {
            (true, Some(pid)) => format!("{source} is mounted at {shown} by process {pid}"),
            (true, None) => format!("{source} is mounted at {shown}"),
            (false, _) => format!(
                "{source} was mounted at {shown}, its process died; ckptfs umount {point} removes it"
            ),
        };
        if self.mount.is_served && !self.mount.answers {
            said += ", which does not answer; let that process go on";
        }
        if let Some(error) = &self.last_error {
            said += &format!("; last error: {error}");
        }
        said
    }
}

impl Display for Status {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return writeln!(f, "nothing is mounted");
        }
        let mut rows = self.0.iter();
        rows.try_for_each(|row| writeln!(f, "{}", one_line(&row.said())))
    }
}
