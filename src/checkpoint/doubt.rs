//! Whether a save that was named alone may be shown: as a run does, it is refused while it is being written, and shown with a
//! warning where only its rest speaks for it.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::folder::Folder;
use super::locate::layout::CheckpointFormat;
use super::rewritten::Marked;
use super::tracker::{self, Said};
use crate::error::{Error, Result};
use crate::source::place;
use crate::statx::Source;

/// How long files that nothing says are complete must have rested to count as complete.
pub const REST: Duration = Duration::from_secs(10);

/// Why a save may not have ended.
#[derive(Debug)]
pub struct Doubt {
    pub path: PathBuf,
    pub reason: String,
    /// When the newest of its files was written. None where its own last file is there.
    pub written: Option<SystemTime>,
}

impl Doubt {
    pub fn error(&self) -> Error {
        let reason = format!(
            "{}; wait until the save ends, or pass --accept-save to show the files as they are",
            self.reason
        );
        Error::checkpoint(&self.path, reason)
    }

    fn warning(&self) -> String {
        format!("{}: {}", self.path.display(), self.reason)
    }

    fn is_fresh(&self) -> bool {
        let age = |written: SystemTime| written.elapsed().unwrap_or_default();
        self.written.is_some_and(|written| age(written) < REST)
    }
}

/// Refuses a save that is being written, or that may be. Returns a warning where only its rest speaks for it.
pub fn check(folder: &Folder, format: &CheckpointFormat) -> Result<Option<String>> {
    let marked = Marked::at(folder, format, Source::Server)?;
    if let Some(rewritten) = marked.as_ref().and_then(Marked::rewritten) {
        return Err(rewritten.error());
    }
    let doubtful = marked.as_ref().and_then(Marked::doubtful);
    let doubt = match doubtful {
        Some(doubtful) => Some(Doubt::from(&doubtful)),
        None => ahead(folder, format)?,
    };
    match doubt {
        Some(doubt) if doubt.is_fresh() => Err(doubt.error()),
        doubt => Ok(doubt.map(|doubt| doubt.warning())),
    }
}

/// A save whose number is above the one that the tracker of its run names. A store is not asked for the tracker of a save
/// that has a last file of its own.
fn ahead(folder: &Folder, format: &CheckpointFormat) -> Result<Option<Doubt>> {
    let is_marked = format.marker().is_some();
    if is_marked && place::is_remote(folder.path()) {
        return Ok(None);
    }
    let path = format.save_in(folder);
    let tracker = tracker::above(&path).filter(|tracker| tracker.said == Said::Ahead);
    let Some(tracker) = tracker else {
        return Ok(None);
    };
    let written = match is_marked {
        true => None,
        false => newest(folder, format)?,
    };
    let reason = format!(
        "has not ended, as {} says, which names {}",
        tracker.path.display(),
        tracker.named.escape_debug()
    );
    Ok(Some(Doubt {
        path,
        reason,
        written,
    }))
}

/// When the newest data file was written.
fn newest(folder: &Folder, format: &CheckpointFormat) -> Result<Option<SystemTime>> {
    let files = format.data_files(folder)?;
    let files = files.iter().map(|name| folder.path().join(name));
    let times = files.filter_map(|path| place::attributes(&path, Source::Server).ok());
    Ok(times.map(|found| found.written()).max())
}
