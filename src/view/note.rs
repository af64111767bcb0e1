//! Remarks and warnings.

use serde::Serialize;

use crate::checkpoint::Checkpoint;

/// A remark on how a view came to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Note {
    /// Whether a user may have to act.
    pub is_warning: bool,
    pub text: String,
}

impl Note {
    pub(super) fn remark(text: String) -> Self {
        let is_warning = false;
        Self { is_warning, text }
    }

    pub(super) fn warning(text: String) -> Self {
        let is_warning = true;
        Self { is_warning, text }
    }

    /// The warnings and remarks about a checkpoint itself.
    pub(super) fn all_of(checkpoint: &Checkpoint) -> Vec<Self> {
        let remarks = checkpoint.notes.iter().cloned().map(Self::remark);
        let warnings = checkpoint.warnings.iter().cloned().map(Self::warning);
        warnings.chain(remarks).collect()
    }
}
