//! Gives an error the tensor that it is about.

use std::path::Path;

use crate::error::Error;

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
