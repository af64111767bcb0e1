//! The log that every mount has: a file in its user's state folder. The file's name tells the mount point, and the process that
//! has it open serves the mount: so `ckptfs status` finds the process, and `ckptfs log` the lines, by the mount point alone.

mod file;
mod find;
mod folder;
mod name;
mod tail;

use std::io;
use std::path::Path;

use crate::mount::Mounted;
use crate::text::one_line;
pub use file::MountLog;
pub use find::{MountProcess, last_log, processes};
pub use tail::{last_error, lines};

/// Makes the log of a mount of `source`. One that cannot be made stops no mount, and is said.
pub fn of(mounted: &Mounted, source: &Path) -> Option<MountLog> {
    let point = mounted.point();
    let log = folder::folder(&[source, point]).and_then(|folder| MountLog::create(point, &folder));
    let complain = |error: &io::Error| {
        let hint = "name a folder that can be written in XDG_STATE_HOME";
        tracing::warn!(
            "the mount keeps no log ({}); {hint}",
            one_line(&error.to_string())
        );
    };
    log.inspect_err(complain).ok()
}
