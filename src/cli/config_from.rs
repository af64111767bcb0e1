//! `--config-from`: a folder, or the name of a model that the hub's local cache holds.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use clap::builder::{OsStringValueParser, TypedValueParser};

use crate::checkpoint::hub_folder;
use crate::mount::{absolute, exists};
use crate::source::place;

/// The variable of the environment for checkpoints that have no config.json themselves.
const VARIABLE: &str = "CKPTFS_CONFIG_FROM";

/// The folder that the argument names, as a path that holds in any working directory.
pub fn folder() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().try_map(resolve)
}

/// The folder for checkpoints that have no config.json themselves.
pub fn usual() -> Option<PathBuf> {
    let named = std::env::var_os(VARIABLE).filter(|value| !value.is_empty())?;
    resolve(named).ok()
}

fn resolve(named: OsString) -> io::Result<PathBuf> {
    let path = place::admit(Path::new(&named)).map_err(io::Error::other)?;
    if place::is_remote(&path) {
        return Ok(path);
    }
    let path = absolute(&path)?;
    match hub_folder(Path::new(&named)) {
        Some(cached) if !exists(&path)? && exists(&cached)? => absolute(&cached),
        _ => Ok(path),
    }
}
