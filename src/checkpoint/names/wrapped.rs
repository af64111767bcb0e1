//! Names without what wrappers put around modules: torch's own components anywhere, and in front those that all names share.

use std::borrow::Cow;

use super::form::one_of_each_form;
use super::words::{is_counter, is_wrapper};
use super::{Knows, State};
use crate::tensor::SourceTensor;

/// DistributedDataParallel and DataParallel put it before all names.
const PARALLEL: &str = "module";

impl State<'_> {
    /// The names as the family has them: as they are where it knows them all, else without wrappers.
    pub(super) fn own_spellings(&self, knows: &Knows) -> Vec<Cow<'_, str>> {
        let plain: Vec<Cow<'_, str>> = { self.tensors.iter() }
            .map(|tensor| Cow::Borrowed(&*tensor.name))
            .collect();
        let is_known = |names: &[Cow<'_, str>]| knows(names, true).iter().all(|known| *known);
        match self.keeps_roots && is_known(&one_of_each_form(&plain)) {
            true => plain,
            false => without_wrappers(&self.tensors, "", true),
        }
    }
}

/// The wrappers in front of all names below `prefix`. Counters of the training do not tell what a model's names share.
pub fn outer_wrappers<'n>(
    tensors: &'n [SourceTensor],
    prefix: &str,
    takes_parallel: bool,
) -> &'n str {
    let named = tensors.iter().map(|tensor| (below(tensor, prefix), tensor));
    let of_model =
        |(name, tensor): &(&str, &SourceTensor)| name.contains('.') || !is_counter(tensor);
    let own: Vec<&str> = named.filter(of_model).map(|(name, _)| name).collect();
    shared_wrappers(&own, takes_parallel)
}

fn below<'n>(tensor: &'n SourceTensor, prefix: &str) -> &'n str {
    tensor.name.strip_prefix(prefix).unwrap_or(&tensor.name)
}

/// The names of tensors below `prefix` without wrappers.
pub fn without_wrappers<'n>(
    tensors: &'n [SourceTensor],
    prefix: &str,
    takes_parallel: bool,
) -> Vec<Cow<'n, str>> {
    let outer = outer_wrappers(tensors, prefix, takes_parallel);
    let names = tensors.iter().map(|tensor| below(tensor, prefix));
    names
        .map(|name| inside(name.strip_prefix(outer).unwrap_or(name)))
        .collect()
}

/// The wrappers in front of all of `names`, each with its dot.
fn shared_wrappers<'n>(names: &[&'n str], takes_parallel: bool) -> &'n str {
    let Some(first) = names.first() else {
        return "";
    };
    let mut end = 0;
    while let Some((component, _)) = first[end..].split_once('.') {
        let is_wrapper = is_wrapper(component) || takes_parallel && component == PARALLEL;
        let next = end + component.len() + 1;
        if !is_wrapper || !names.iter().all(|name| name.starts_with(&first[..next])) {
            break;
        }
        end = next;
    }
    &first[..end]
}

/// The name without the components that torch's wrappers inserted in its middle.
fn inside(name: &str) -> Cow<'_, str> {
    if !name.split('.').any(is_wrapper) {
        return name.into();
    }
    let mut kept = name.split('.').filter(|component| !is_wrapper(component));
    match kept.next() {
        None => name.into(),
        Some(first) => kept
            .fold(first.to_owned(), |own, component| own + "." + component)
            .into(),
    }
}
