//! The tensors that knowledge of names makes of a state.

use super::names::spelling::Spelling;
use super::tied::Tied;
use crate::checkpoint::Entry;
use crate::error::Error;
use crate::mapping::Outcome;

/// The tensors of a model under Hugging Face's names.
pub struct Mapped {
    /// The name of the system's table.
    pub system: String,
    pub outcome: Outcome,
    pub tied: Vec<Tied>,
    pub entries: Vec<Entry>,
    /// How the names, which are those of a model with a head, are shown.
    pub spelling: Spelling,
}

/// The tensors that one kind of knowledge makes of a state.
pub enum Reading {
    Whole(Box<Mapped>),
    /// Some names are none that it has.
    Foreign(Error),
}
