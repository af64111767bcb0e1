//! The entries of a state: the one that the user names, and those that stand beside the model.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::roots::any_shared_roots;
use super::{Normalised, SHOWN, State, below};
use crate::error::{Error, Result};
use crate::tensor::SourceTensor;

/// An entry of a training state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    pub name: String,
    pub tensors: usize,
    /// Whether it is the model that is shown.
    pub is_shown: bool,
}

impl Normalised {
    /// The model's entry of `tensors` tensors, and those beside it: none where nothing stands beside it.
    pub fn entries(&self, tensors: usize) -> Vec<Entry> {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        let names: Vec<&str> = self.beside.iter().map(|tensor| &*tensor.name).collect();
        let root = any_shared_roots(&names).pop().unwrap_or_default();
        let root = if self.prefix.starts_with(&root) {
            root.len()
        } else {
            0
        };
        for name in &names {
            let end = name[root..].find('.').map_or(name.len(), |dot| root + dot);
            *counts.entry(&name[..end]).or_default() += 1;
        }
        if counts.is_empty() {
            return Vec::new();
        }
        let entry = |(name, tensors): (&str, usize), is_shown| Entry {
            name: name.to_owned(),
            tensors,
            is_shown,
        };
        let shown = entry((self.prefix.trim_end_matches('.'), tensors), true);
        let others = counts.into_iter().map(|counted| entry(counted, false));
        std::iter::once(shown).chain(others).collect()
    }
}

impl State<'_> {
    /// The tensors below the entry that the user named, and the others.
    pub(super) fn below_entry(mut self) -> Result<(Self, Vec<SourceTensor>)> {
        let Some(entry) = self.entry else {
            return Ok((self, Vec::new()));
        };
        let prefix = format!("{}.", entry.trim_end_matches('.'));
        let (own, beside): (Vec<_>, Vec<_>) = std::mem::take(&mut self.tensors)
            .into_iter()
            .partition(|tensor| tensor.name.starts_with(&prefix));
        if own.is_empty() {
            let keys: BTreeSet<&str> = beside
                .iter()
                .filter_map(|tensor| Some(tensor.name.split_once('.')?.0))
                .collect();
            let keys: Vec<&str> = keys.into_iter().take(SHOWN).collect();
            let reason = format!("has no entry {entry}: name one of {}", keys.join(", "));
            return Err(Error::Mapping(reason));
        }
        let own = own.into_iter().map(|tensor| below(tensor, &prefix));
        self.tensors = own.collect();
        Ok((self, beside))
    }
}
