//! The entries of a state: the one that the user names, and those that stand beside the model.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::roots::any_shared_roots;
use super::wrapped::outer_wrappers;
use super::{Normalised, SHOWN, State};
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
    /// The entries that `--entry` takes: the model's of `tensors` tensors, and those beside it. None where nothing but single
    /// tensors stands beside it.
    pub fn entries(&self, tensors: usize) -> Vec<Entry> {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        let names = self.beside.iter().map(|tensor| &*tensor.name);
        let names: Vec<&str> = names
            .map(|name| name.strip_prefix(&*self.outer).unwrap_or(name))
            .collect();
        let root = any_shared_roots(&names).pop().unwrap_or_default();
        let root = if self.prefix.starts_with(&root) {
            root.len()
        } else {
            0
        };
        for name in &names {
            if let Some(dot) = name[root..].find('.') {
                *counts.entry(&name[..root + dot]).or_default() += 1;
            }
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
        let outer = outer_wrappers(&self.tensors, "", true).to_owned();
        // As the state has it, inside of wrappers, or with the dictionaries that hold all.
        let spelled: [Spelled; 3] = [
            |tensor, _| Some(&tensor.name),
            |tensor, outer| tensor.name.strip_prefix(outer),
            |tensor, _| Some(&tensor.origin),
        ];
        let below = |tensor: &SourceTensor, spelled: &Spelled| {
            let name = spelled(tensor, &outer)?.strip_prefix(&*prefix)?;
            Some(name.to_owned())
        };
        let has = |way: &&Spelled| {
            self.tensors
                .iter()
                .any(|tensor| below(tensor, way).is_some())
        };
        let Some(way) = spelled.iter().find(has) else {
            return Err(self.has_no_entry(entry, &outer));
        };
        let mut beside = Vec::new();
        let mut own = Vec::new();
        let mut prefix = "";
        for tensor in &self.tensors {
            let Some(name) = below(tensor, way) else {
                beside.push(tensor.clone());
                continue;
            };
            prefix = tensor.name.strip_suffix(&*name).unwrap_or(prefix);
            own.push(tensor.clone().renamed(name));
        }
        let keys = self.dictionaries.iter();
        let keys = keys.filter_map(|key| key.strip_prefix(prefix).filter(|own| !own.is_empty()));
        self.dictionaries = Cow::Owned(keys.map(str::to_owned).collect());
        self.tensors = own;
        Ok((self, beside))
    }

    fn has_no_entry(&self, entry: &str, outer: &str) -> Error {
        let own = |tensor: &'_ SourceTensor| tensor.name.strip_prefix(outer).map(str::to_owned);
        let names: Vec<String> = self.tensors.iter().filter_map(own).collect();
        let keys = { names.iter() }.filter_map(|name| Some(name.split_once('.')?.0));
        let keys: BTreeSet<&str> = keys.collect();
        let keys: Vec<&str> = keys.into_iter().take(SHOWN).collect();
        Error::Mapping(format!(
            "has no entry {entry}: name one of {}",
            keys.join(", ")
        ))
    }
}

/// A way to spell a tensor's name, given the wrappers around all.
type Spelled = for<'t> fn(&'t SourceTensor, &str) -> Option<&'t str>;
