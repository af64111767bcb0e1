//! Gives an error the tensor that it is about.

use std::path::Path;

use crate::error::Error;

/// The error of `tensor`, of which `file` tells. Errors of the system and of changed files keep their own words.
pub fn named(error: Error, file: &Path, tensor: &str) -> Error {
    let tensor = tensor.escape_debug().to_string();
    match error {
        Error::Mapping(reason) => Error::tensor(file, &tensor, reason),
        Error::Malformed { file, reason } => Error::tensor(&file, &tensor, reason),
        other => other,
    }
}
