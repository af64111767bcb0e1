//! The names of a base model, which stand under a prefix in the models that are built on it, and in tables.

use std::borrow::Cow;
use std::sync::Arc;

use crate::mapping::{MappedTensor, System};

/// The prefix that models with a head put before the names of their base.
const BASE_PREFIX: &str = "model.";

/// How names that a system knows stand in a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spelling {
    /// As the system writes them.
    Own,
    /// As a base model's own, which stand under a prefix in the models built on it; so AutoModel saves them.
    InBase,
}

impl Spelling {
    /// All ways in which names may stand.
    pub const ALL: &[Self] = &[Self::Own, Self::InBase];

    /// The name that tables have for a model's.
    pub fn of<'a>(self, name: &'a str) -> Cow<'a, str> {
        match self {
            Self::Own => name.into(),
            Self::InBase => format!("{BASE_PREFIX}{name}").into(),
        }
    }

    /// Tensors of tables' names under those that the model has: the way back.
    pub fn shown(self, tensors: Vec<MappedTensor>) -> Vec<MappedTensor> {
        let own = |name: &str| name.strip_prefix(BASE_PREFIX).map(Arc::from);
        let rename = |tensor: MappedTensor| MappedTensor {
            name: own(&tensor.name).unwrap_or(tensor.name),
            ..tensor
        };
        match self {
            Self::Own => tensors,
            Self::InBase => tensors.into_iter().map(rename).collect(),
        }
    }

    /// Returns whether names of a system may stand so.
    pub fn may_be(self, system: &System) -> bool {
        system.identity || self == Self::Own
    }
}
