//! The outcome of each tensor and file.

use std::fmt::{self, Display, Formatter};

use serde::Serialize;

use super::values::{NonFinite, Number};
use crate::error::{Error, Result};
use crate::mapping::MappedTensor;

/// A difference between the view's tensor and the other one.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Difference {
    /// Type or shape.
    Kind {
        here: String,
        there: String,
    },
    Elements(DifferentElements),
}

/// The elements of a tensor that differ.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DifferentElements {
    pub count: u64,
    /// Index of the first, and its values.
    pub first: Vec<u64>,
    pub here: Number,
    pub there: Number,
    /// Largest absolute difference of those that are numbers on both sides.
    pub largest: Option<Number>,
    /// Elements that are NaN on one side alone.
    pub nan: u64,
}

/// All but their count: `first [510]: 2.5 is not -1; largest difference 3.5; 1 are NaN on one side alone`.
impl Display for DifferentElements {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (first, here, there) = (&self.first, &self.here, &self.there);
        write!(f, "first {first:?}: {here} is not {there}")?;
        if let Some(largest) = &self.largest {
            write!(f, "; largest difference {largest}")?;
        }
        match self.nan {
            0 => Ok(()),
            nan => write!(f, "; {nan} are NaN on one side alone"),
        }
    }
}

/// The outcome for one tensor or one file.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Outcome {
    /// All bytes could be read.
    Read {
        #[serde(skip_serializing_if = "Option::is_none")]
        values: Option<NonFinite>,
    },
    /// Both sides have the same type, shape and bytes.
    Equal,
    Different(Difference),
    /// The other directory has it, the view does not.
    Missing,
    /// The view has it, the other directory does not.
    Extra,
    Failed {
        reason: String,
    },
}

/// An outcome and its subject.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    pub name: String,
    #[serde(flatten)]
    pub outcome: Outcome,
    /// The laws that the elements of a computed tensor follow, innermost first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub laws: Vec<&'static str>,
}

impl Finding {
    pub(super) fn new(name: &str, outcome: Result<Outcome>) -> Self {
        let failed = |error: Error| Outcome::Failed {
            reason: error.to_string(),
        };
        Self {
            name: name.to_owned(),
            outcome: outcome.unwrap_or_else(failed),
            laws: Vec::new(),
        }
    }

    pub(super) fn of(mapped: &MappedTensor, outcome: Result<Outcome>) -> Self {
        Self {
            laws: mapped.tensor.laws(),
            ..Self::new(&mapped.name, outcome)
        }
    }

    /// Whether nothing stands against it.
    pub fn is_good(&self) -> bool {
        matches!(self.outcome, Outcome::Read { .. } | Outcome::Equal)
    }
}
