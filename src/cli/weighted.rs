//! Arguments that are a path with a weight, such as `math-lora=0.7`.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clap::builder::{OsStringValueParser, TypedValueParser};

use crate::mount::{absolute, exists};
use crate::source::place;
use crate::view::MergedAdapter;

/// A path, and the number behind its last `=`.
#[derive(Debug, Clone, PartialEq)]
pub struct Weighted {
    pub path: PathBuf,
    pub weight: f64,
    /// Whether the word `own` stands in the place of the path.
    pub is_own: bool,
}

impl Weighted {
    pub fn merged(self) -> MergedAdapter {
        let Self {
            path,
            weight,
            is_own,
        } = self;
        match is_own {
            true => MergedAdapter::Own { weight },
            false => MergedAdapter::At { path, weight },
        }
    }
}

/// A source, kept as a path that holds in any working directory.
pub fn path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().try_map(|word| admitted(Path::new(&word)))
}

/// An adapter, with a weight or without.
pub fn merge() -> impl TypedValueParser<Value = Weighted> {
    OsStringValueParser::new().try_map(|word| split(&word, Some(1.0), true))
}

/// A source with its weight.
pub fn delta() -> impl TypedValueParser<Value = Weighted> {
    OsStringValueParser::new().try_map(|word| split(&word, None, false))
}

/// The path or URL, as one that holds in any working directory.
fn admitted(path: &Path) -> io::Result<PathBuf> {
    let admitted = place::admit(path).map_err(io::Error::other)?;
    absolute(&admitted)
}

/// Splits off the weight behind the last `=`, unless the whole word exists as a path.
fn split(word: &OsStr, usual: Option<f64>, may_be_own: bool) -> io::Result<Weighted> {
    let lacks = || io::Error::other("has no weight; write SOURCE=W");
    let weighted = |word: &OsStr, weight| {
        let is_own = may_be_own && word == "own";
        let path = Path::new(word);
        let path = if is_own {
            path.to_owned()
        } else {
            admitted(path)?
        };
        Ok(Weighted {
            path,
            weight,
            is_own,
        })
    };
    let bytes = word.as_bytes();
    let at = bytes.iter().rposition(|byte| *byte == b'=');
    match at {
        Some(at) if !exists(Path::new(word))? => {
            let (path, weight) = bytes.split_at(at);
            let weight = String::from_utf8_lossy(weight.get(1..).unwrap_or_default());
            weighted(
                OsStr::from_bytes(path),
                number(&weight).map_err(io::Error::other)?,
            )
        }
        _ => weighted(word, usual.ok_or_else(lacks)?),
    }
}

pub fn number(word: &str) -> Result<f64, String> {
    let number: Option<f64> = word.trim().parse().ok();
    number
        .filter(|number| number.is_finite())
        .ok_or_else(|| format!("{word:?} is no finite number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_exists_is_a_path_and_else_the_last_sign_splits() {
        let folder = tempfile::tempdir().unwrap();
        let saved = folder.path().join("epoch=0-step=2");
        std::fs::create_dir(&saved).unwrap();
        let split = |word: &Path, usual| split(word.as_os_str(), usual, true);
        let found = split(&saved, Some(1.0)).unwrap();
        assert_eq!((&found.path, found.weight), (&saved, 1.0));
        let weighted = folder.path().join("epoch=0-step=2=-0.5");
        let found = split(&weighted, Some(1.0)).unwrap();
        assert_eq!((&found.path, found.weight), (&saved, -0.5));
        for wrong in ["a=", "a=x", "a=inf", "a=NaN"] {
            assert!(split(Path::new(wrong), Some(1.0)).is_err());
        }
        assert!(split(&saved, None).is_err());
        assert!(split(Path::new("own"), Some(1.0)).unwrap().is_own);
        assert!(split(Path::new("own=0.5"), Some(1.0)).unwrap().is_own);
        assert!(!split(Path::new("./own"), Some(1.0)).unwrap().is_own);
    }
}
