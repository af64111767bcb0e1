//! Gives an error the tensor that it is about.

use std::path::Path;

use crate::error::{Error, Result};

/// The error of `tensor`, of which `file` tells. Errors of the system and of changed files keep their own words.
pub fn named(error: Error, file: &Path, tensor: &str) -> Error {
    let tensor = tensor.escape_debug();
    match error {
        Error::Unserved(reason) => Error::tensor(file, &tensor.to_string(), reason),
        Error::Mapping(reason) => Error::malformed(file, format!("tensor {tensor}: {reason}")),
        Error::Malformed { file, reason } => {
            Error::malformed(&file, format!("tensor {tensor}: {reason}"))
        }
        other => other,
    }
}

/// The error of something without a name in `file`, which may be all that it holds.
pub fn unnamed(error: Error, file: &Path) -> Error {
    match error {
        Error::Unserved(reason) => Error::checkpoint(file, reason),
        Error::Mapping(reason) => Error::malformed(file, reason),
        other => other,
    }
}

/// Refuses a slice of a flat parameter, in which FSDP1 keeps all weights of a module one behind the other.
///
/// # Errors
/// When the name is one's.
pub fn refuse_flat(path: &Path, name: &str) -> Result<()> {
    match name.rsplit('.').next() {
        Some("_flat_param" | "flat_param") => {
            let reason = "is one rank's slice of FSDP1's flat parameter (LOCAL_STATE_DICT), and no file says where in it which weight lies; load it in the training that wrote it, and save with StateDictType.SHARDED_STATE_DICT or FULL_STATE_DICT";
            Err(Error::tensor(path, name, reason))
        }
        _ => Ok(()),
    }
}
