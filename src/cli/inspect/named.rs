//! `--tensor`: the tensors that a name means, or a pattern.

use std::fmt::{self, Display, Formatter};
use std::path::Path;

use regex_lite::Regex;
use serde::Serialize;

use super::report::TensorDetail;
use crate::error::{Error, Result};
use crate::mapping::MappedTensor;
use crate::view::View;

/// Names whose likeness to a wrong one is at least this, of 1, are worth naming.
const ALIKE: f64 = 0.8;

/// The details of one tensor, or of all that a pattern or a name of the checkpoint means.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Details {
    One(Box<TensorDetail>),
    Several(Vec<TensorDetail>),
}

impl Details {
    /// # Errors
    /// When no tensor has the name, or where it lies cannot be read.
    pub fn of(source: &Path, view: &View, name: &str) -> Result<Self> {
        let tensors = view.tensors.iter();
        if let Some(mapped) = tensors.clone().find(|tensor| *tensor.name == *name) {
            return Ok(Self::One(Box::new(TensorDetail::of(view, mapped)?)));
        }
        let pattern = pattern(name);
        let is_meant = |mapped: &&MappedTensor| match &pattern {
            Some(pattern) => pattern.is_match(&mapped.name),
            None => mapped.sources.iter().any(|source| **source == *name),
        };
        let meant = tensors.filter(is_meant);
        let details: Result<Vec<_>> = meant.map(|mapped| TensorDetail::of(view, mapped)).collect();
        let details = details?;
        match details.is_empty() {
            true => Err(Error::checkpoint(source, unknown(view, name))),
            false => Ok(Self::Several(details)),
        }
    }
}

/// A name with `*` for any text and `?` for any character; `None` where it has neither.
fn pattern(name: &str) -> Option<Regex> {
    if !name.contains(['*', '?']) {
        return None;
    }
    let text = regex_lite::escape(name);
    let text = text.replace("\\*", ".*").replace("\\?", ".");
    Regex::new(&format!("^{text}$")).ok()
}

/// The reason why a name means no tensor, with the one that is spelled most like it.
fn unknown(view: &View, name: &str) -> String {
    let likeness = |other: &str| strsim::jaro_winkler(name, other);
    let names = view.tensors.iter().map(|tensor| &*tensor.name);
    let nearest = names.max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    let nearest = nearest.filter(|other| likeness(other) >= ALIKE);
    let hint = nearest.map_or(String::new(), |other| format!("did you mean {other}? "));
    format!("the view has no tensor {name}; {hint}inspect --json lists all")
}

impl Display for Details {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(detail) => detail.fmt(f),
            Self::Several(details) => details.iter().enumerate().try_for_each(|(at, detail)| {
                let gap = if at == 0 { "" } else { "\n" };
                write!(f, "{gap}{detail}")
            }),
        }
    }
}
