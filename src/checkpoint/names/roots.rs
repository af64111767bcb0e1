//! Beginnings that all names of a state share.

use std::collections::BTreeSet;

use super::words::is_root;
use crate::tensor::SourceTensor;

/// Takes the dictionaries that hold a whole state off its names: the outermost, whatever it is called, and those of
/// training loops in it.
pub fn below_shared(tensors: &mut [SourceTensor], dictionaries: &mut BTreeSet<String>) {
    let mut shared = String::new();
    while let Some(next) = shared_dictionary(tensors, dictionaries, &shared) {
        shared = next;
    }
    if shared.is_empty() {
        return;
    }
    for tensor in tensors {
        if let Some(own) = tensor.name.strip_prefix(&*shared) {
            tensor.name = own.into();
        }
    }
    let inner = dictionaries
        .iter()
        .filter_map(|key| key.strip_prefix(&*shared))
        .filter(|key| !key.is_empty());
    *dictionaries = inner.map(str::to_owned).collect();
}

/// The dictionary directly in `outer` that holds all tensors.
fn shared_dictionary(
    tensors: &[SourceTensor],
    dictionaries: &BTreeSet<String>,
    outer: &str,
) -> Option<String> {
    let first = &tensors.first()?.name;
    let rest = first.strip_prefix(outer)?;
    let mut keys = rest.match_indices('.').map(|(dot, _)| &rest[..=dot]);
    let key = keys.find(|key| dictionaries.contains(&format!("{outer}{key}")))?;
    let is_container = outer.is_empty() || is_root(key.trim_end_matches('.'));
    let whole = format!("{outer}{key}");
    let holds_all = tensors
        .iter()
        .all(|tensor| tensor.name.starts_with(&*whole));
    (is_container && holds_all).then_some(whole)
}

/// Roots that all of `names` share above their own names, shortest first, starting with none: those of training loops.
pub fn shared_roots(names: &[&str]) -> Vec<String> {
    roots(names, &is_root)
}

/// The same, whatever they are called: in Lightning the attribute that holds the model.
pub fn any_shared_roots(names: &[&str]) -> Vec<String> {
    roots(names, &|_| true)
}

fn roots(names: &[&str], may_be: &dyn Fn(&str) -> bool) -> Vec<String> {
    let mut roots = vec![String::new()];
    loop {
        let root = roots.last().cloned().unwrap_or_default();
        let next = names
            .first()
            .and_then(|name| name.strip_prefix(&*root)?.split_once('.'));
        let Some((component, _)) = next.filter(|(component, _)| may_be(component)) else {
            return roots;
        };
        let longer = format!("{root}{component}.");
        if !names.iter().all(|name| name.starts_with(&longer)) {
            return roots;
        }
        roots.push(longer);
    }
}
