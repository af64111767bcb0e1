//! The files beside the weights, of which config.json is read.

use std::path::Path;

use serde_json::{Map, Value};

use super::config_text::Text;
use crate::checkpoint::{self, Checkpoint, SideFile};
use crate::error::{Error, Result};
use crate::source::SourceFile;

pub const CONFIG: &str = "config.json";

/// Largest config.json that is read. In memory its values may take forty times as much.
const SIZE_LIMIT: u64 = 4 << 20;

/// The side files of `config_from`, then those of the source that it lacks.
pub fn side_files(checkpoint: &Checkpoint, config_from: Option<&Path>) -> Result<Vec<SideFile>> {
    let mut files = match config_from {
        Some(path) => checkpoint::side_files_in(path)?,
        None => Vec::new(),
    };
    for file in &checkpoint.side_files {
        if !files.iter().any(|other| other.path == file.path) {
            files.push(file.clone());
        }
    }
    Ok(files)
}

/// Returns whether a config.json is among the files.
pub fn have_config(files: &[SideFile]) -> bool {
    files.iter().any(|file| file.path == CONFIG)
}

/// The values of a config.json.
pub fn read_config(file: &SourceFile) -> Result<Map<String, Value>> {
    parse(file).map(|(_, values)| values)
}

/// The text of a config.json, and its values.
pub fn parse(file: &SourceFile) -> Result<(Text, Map<String, Value>)> {
    if file.size() > SIZE_LIMIT {
        let size = file.size();
        let reason =
            format!("has {size} bytes, too many for a config; give the right --config-from");
        return Err(Error::checkpoint(file.path(), reason));
    }
    let mut bytes = vec![0; file.size() as usize];
    file.read_exact_at(&mut bytes, 0)?;
    Text::parse(file, bytes)
}
