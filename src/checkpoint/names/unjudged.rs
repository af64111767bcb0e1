//! The model of a family that is not known: the dictionary that holds the bulk of the tensors.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::roots::shared_roots;
use super::words::{is_added_head, is_copy, is_counter, is_never_weight, is_root};
use super::wrapped::without_wrappers;
use super::{Normalised, State, below, several};
use crate::error::Result;
use crate::tensor::SourceTensor;

/// The state of a family that is not known, told by its dictionaries and by the roots that training loops use.
pub fn unjudged(state: State<'_>) -> Result<Normalised> {
    let mut prefix = String::new();
    while let Some(next) = inner(&state, &prefix)? {
        prefix = next;
    }
    let (mut own, beside): (Vec<_>, Vec<_>) = state
        .tensors
        .into_iter()
        .partition(|tensor| tensor.name.starts_with(&prefix));
    let names: Vec<String> = without_wrappers(&own, &prefix, !state.keeps_roots)
        .into_iter()
        .map(Cow::into_owned)
        .collect();
    for (tensor, name) in own.iter_mut().zip(names) {
        tensor.name = name.into();
    }
    let mut found = Normalised {
        prefix,
        beside,
        ..Normalised::default()
    };
    let (named, others) = own_names(own, &mut found.prefix, state.keeps_roots);
    found.beside.extend(others);
    let (heads, own): (Vec<_>, Vec<_>) = named
        .into_iter()
        .partition(|tensor| is_added_head(&tensor.name));
    found.beside.extend(heads);
    let is_buffer =
        |tensor: &SourceTensor| !state.keeps_roots && is_never_weight(tensor, &tensor.name);
    (found.buffers, found.model) = own.into_iter().partition(is_buffer);
    Ok(found)
}

/// The dictionary directly below `prefix` that holds the model, where one does.
fn inner(state: &State<'_>, prefix: &str) -> Result<Option<String>> {
    let below: Vec<&str> = state
        .tensors
        .iter()
        .filter_map(|tensor| Some((tensor.name.strip_prefix(prefix)?, tensor)))
        .filter(|(name, tensor)| name.contains('.') || !is_counter(tensor))
        .map(|(name, _)| name)
        .collect();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for name in &below {
        let is_key = |dot: &usize| {
            state
                .dictionaries
                .contains(&format!("{prefix}{}", &name[..=*dot]))
        };
        if let Some(dot) = name.match_indices('.').map(|(dot, _)| dot).find(is_key) {
            *counts.entry(&name[..=dot]).or_default() += 1;
        }
    }
    let is_flat = |key: &str| {
        let inside = format!("{prefix}{key}");
        !state
            .dictionaries
            .iter()
            .any(|other| other.len() > inside.len() && other.starts_with(&inside))
    };
    let mut models: Vec<(&str, usize)> = counts.iter().map(|(key, count)| (*key, *count)).collect();
    models.retain(|(key, _)| is_root(key.trim_end_matches('.')) || is_flat(key));
    let originals: Vec<(&str, usize)> = models
        .iter()
        .copied()
        .filter(|(key, _)| !is_copy(key))
        .collect();
    let mut models = if originals.is_empty() {
        models
    } else {
        originals
    };
    models.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let copies: usize = counts
        .iter()
        .filter(|(key, _)| is_copy(key))
        .map(|(_, count)| count)
        .sum();
    match *models {
        [(first, count), (second, other), ..] if other * 2 >= count && count > 1 => {
            Err(several([first, second]))
        }
        [(key, count), ..] if count * 2 > below.len().saturating_sub(copies) => {
            Ok(Some(format!("{prefix}{key}")))
        }
        _ => Ok(None),
    }
}

/// Names without what a training loop put above them, told by the model's own parts that then stand first. Also what it
/// keeps beside the model. In a Hugging Face directory a root is taken off only where something stands beside it.
fn own_names(
    tensors: Vec<SourceTensor>,
    prefix: &mut String,
    keeps_roots: bool,
) -> (Vec<SourceTensor>, Vec<SourceTensor>) {
    let names: Vec<&str> = tensors.iter().map(|tensor| &*tensor.name).collect();
    let roots = shared_roots(&names);
    let stands_above = |root: &&String| {
        let mut below = names.iter().map(|name| &name[root.len()..]);
        root.is_empty() || below.any(starts_with_own_part)
    };
    let root = roots.iter().rfind(stands_above).cloned();
    let entry = entry_of_model(&names);
    let root = match keeps_roots {
        true => entry.filter(|entry| names.iter().any(|name| !name.starts_with(&**entry))),
        false => entry.or(root),
    };
    let root = root.unwrap_or_default();
    let (own, beside): (Vec<_>, Vec<_>) = tensors
        .into_iter()
        .partition(|tensor| tensor.name.starts_with(&root));
    prefix.push_str(&root);
    (
        own.into_iter().map(|tensor| below(tensor, &root)).collect(),
        beside,
    )
}

/// The prefix of the one entry of a state that holds the model's own parts and nothing else, where others stand beside it.
fn entry_of_model(names: &[&str]) -> Option<String> {
    let shared = shared_roots(names).pop().unwrap_or_default();
    let below = names.iter().map(|name| &name[shared.len()..]);
    let mut entries: BTreeMap<&str, bool> = BTreeMap::new();
    for (key, rest) in below.filter_map(|name| name.split_once('.')) {
        *entries.entry(key).or_insert(true) &= starts_with_own_part(rest);
    }
    let mut models = entries.iter().filter(|(key, own)| **own && is_root(key));
    let (Some((key, _)), None) = (models.next(), models.next()) else {
        return None;
    };
    let prefix = format!("{shared}{key}.");
    let mut beside = names.iter().filter(|name| !name.starts_with(&prefix));
    beside
        .all(|name| !starts_with_own_part(&name[shared.len()..]))
        .then_some(prefix)
}

fn starts_with_own_part(name: &str) -> bool {
    let first = name.split('.').next();
    matches!(first, Some("model" | "lm_head" | "transformer" | "score"))
}
