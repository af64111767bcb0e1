//! Which views are mounted.

use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};

use super::point;
use crate::error::{Error, Result};
use crate::mountinfo::{self, NAME_PREFIX};

/// A view in the table of mounts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mount {
    #[serde(serialize_with = "as_text")]
    pub point: PathBuf,
    /// The checkpoint.
    pub source: String,
    /// Whether its process lives.
    pub is_served: bool,
    /// Whether it answers: a stopped process does not.
    pub answers: bool,
    /// The user who mounted it, where the filesystem tells.
    #[serde(skip)]
    pub owner: Option<u32>,
}

/// JSON is text: a name that is none is shown as the lines for people show it.
fn as_text<S: Serializer>(path: &Path, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

/// The views of this process' namespace, of all users.
pub fn mounts() -> Result<Vec<Mount>> {
    Ok(views()?.map(mount).collect())
}

/// Where views are mounted, alive or not: none of them is asked.
pub fn view_points() -> Result<Vec<PathBuf>> {
    Ok(views()?.map(|entry| entry.point).collect())
}

fn views() -> Result<impl Iterator<Item = mountinfo::Entry>> {
    let table = mountinfo::all().map_err(|error| {
        let reason = format!("the table of mounts cannot be read ({error}); mount /proc");
        Error::mount(Path::new("/proc/thread-self/mountinfo"), reason)
    })?;
    Ok(table.into_iter().filter(mountinfo::Entry::is_view))
}

fn mount(entry: mountinfo::Entry) -> Mount {
    let source = entry
        .source
        .strip_prefix(NAME_PREFIX)
        .unwrap_or(&entry.source);
    let has_process = point::ask_for_process(&entry.point);
    Mount {
        source: source.to_owned(),
        is_served: has_process.unwrap_or(true),
        answers: has_process == Some(true),
        owner: entry.owner(),
        point: entry.point,
    }
}
