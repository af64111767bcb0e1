//! The folder of a run's saves: the one that is named, or the one in it that training systems keep them in.

use std::path::Path;

use super::search;
use crate::checkpoint::folder::Folder;
use crate::checkpoint::save_names::{is_link_beside, is_temporary, numbered};
use crate::error::Result;
use crate::source::place;

/// Folders in which torchtitan (0.3.0) and Lingua keep a run's checkpoints.
const INNER: [&str; 2] = ["checkpoint", "checkpoints"];

/// The folder at `source`, or else its folder of checkpoints, if it is as wanted.
pub fn first(source: &Path, is_wanted: &dyn Fn(&Folder) -> Result<bool>) -> Result<Option<Folder>> {
    if !place::is_folder(source) {
        return Ok(None);
    }
    let outer = Folder::open(source)?;
    if is_wanted(&outer)? {
        return Ok(Some(outer));
    }
    let is_folder = |name: &&str| outer.has_folder(name);
    for name in INNER.into_iter().filter(is_folder) {
        let folder = outer.subfolder(name)?;
        if is_wanted(&folder)? {
            return Ok(Some(folder));
        }
    }
    Ok(None)
}

/// Whether the folder is no checkpoint itself and has several, or a numbered one.
pub fn holds_checkpoints(folder: &Folder) -> Result<bool> {
    let own = search(folder, "")?.len();
    if own > 0 {
        return Ok(own > 1);
    }
    let mut names = folder.folders()?;
    names.retain(|name| !is_temporary(name) && !is_link_beside(folder, name));
    // The numbered ones first: of them one is enough.
    names.sort_by_key(|name| numbered(name).is_none());
    let mut found = 0;
    for name in names {
        // One that cannot be looked at proves nothing.
        let inside = search(folder, &name).map_or(0, |inside| inside.len());
        if inside > 1 && INNER.contains(&&*name) {
            continue; // The run itself.
        }
        found += inside;
        if found > 1 || inside > 0 && numbered(&name).is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}
