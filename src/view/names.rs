//! Names below what wrappers and training loops put around them, their order, and errors that list them.

pub mod families;

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use foldhash::{HashSet, HashSetExt};

use super::Note;
use crate::checkpoint::{is_root, shared_roots, unwrapped};
use crate::error::{Error, Result};
use crate::mapping::{Family, MappedTensor, System, Tables, coverage, form_of, renamed_by};
use crate::tensor::SourceTensor;

/// What models with a head put before the names of their base.
pub const BASE_PREFIX: &str = "model.";

/// How many names a message shows.
const SHOWN: usize = 6;

/// The error about names that no system has.
pub fn of_no_system(tables: &Tables, family: &Family, tensors: &[SourceTensor]) -> Error {
    if tables.speaks_of(family) {
        return Error::Mapping(format!(
            "no system of --mapping's table has a rule in family {} for {}: add rules for them",
            family.name,
            listed(tensors)
        ));
    }
    Error::Mapping(format!(
        "no system is known whose names for family {} are like {}: is the config.json this model's? If so, add a table with --mapping FILE",
        family.name,
        listed(tensors)
    ))
}

/// One name of each form speaks for all layers.
pub fn one_of_each_form<'a>(names: &'a [Cow<'_, str>]) -> Vec<Cow<'a, str>> {
    let mut forms = HashSet::new();
    let is_new = |name: &&Cow<'_, str>| forms.insert(form_of(name).0);
    let samples = names.iter().filter(is_new);
    samples.map(|name| Cow::Borrowed(&**name)).collect()
}

/// The error about weights that the system's table does not know.
pub fn unknown(
    tables: &Tables,
    system: &System,
    family: &Family,
    tensors: &[SourceTensor],
) -> Error {
    Error::Mapping(format!(
        "{}system {} has no rule in family {} for {}: if they belong to it, add a rule with --mapping FILE",
        tables.place(system),
        system.name,
        family.name,
        listed(tensors)
    ))
}

/// Names without wrappers and without what a training loop put above them, told by the model's own parts that then stand
/// first. Also what it keeps beside the model.
pub fn own_names(mut tensors: Vec<SourceTensor>) -> (Vec<SourceTensor>, Vec<SourceTensor>) {
    for tensor in &mut tensors {
        let name = unwrapped(&tensor.name);
        if name.len() < tensor.name.len() {
            tensor.name = Arc::from(&*name);
        }
    }
    let names: Vec<&str> = tensors.iter().map(|tensor| &*tensor.name).collect();
    let roots = shared_roots(&names);
    let stands_above = |root: &&String| {
        let mut below = names.iter().map(|name| &name[root.len()..]);
        root.is_empty() || below.any(starts_with_own_part)
    };
    let root = roots.iter().rfind(stands_above).cloned();
    let root = entry_of_model(&names).or(root).unwrap_or_default();
    let (own, beside): (Vec<_>, Vec<_>) = tensors
        .into_iter()
        .partition(|tensor| tensor.name.starts_with(&root));
    match root.len() {
        0 => (own, beside),
        root => (renamed(&own, |name| name[root..].to_owned()), beside),
    }
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

/// A remark on tensors that are left out because they are none of the model's.
pub fn left_out(beside: &[SourceTensor]) -> Option<Note> {
    let text = || {
        format!(
            "left out, as it stands beside the model: {}",
            listed(beside)
        )
    };
    (!beside.is_empty()).then(|| Note::warning(text()))
}

/// The system with other names than Hugging Face's that knows all of these, in a family whose tensors are not listed.
pub fn other_system<'t>(
    tables: &'t Tables,
    family: &'t Family,
    tensors: &[SourceTensor],
) -> Option<&'t System> {
    let bare = tensors.iter().map(|tensor| Cow::Borrowed(&*tensor.name));
    let bare: Vec<Cow<'_, str>> = bare.collect();
    let bare = one_of_each_form(&bare);
    let knows_all = |system: &&System| coverage(system, family, &bare) == bare.len();
    let mut others = tables.systems_of(family).filter(|system| !system.identity);
    others.find(knows_all)
}

/// Refuses names that a system gives to other families: no table says what this family makes of them.
pub fn refuse_foreign(tables: &Tables, model_type: &str, tensors: &[SourceTensor]) -> Result<()> {
    let family = tables.unknown_family(model_type);
    if family.is_some_and(|family| other_system(tables, family, tensors).is_some()) {
        return Ok(());
    }
    let names = tensors.iter().map(|tensor| &*tensor.name);
    let roots = shared_roots(&names.collect::<Vec<_>>());
    let root = roots.last().map_or(0, String::len);
    let bare = tensors
        .iter()
        .map(|tensor| Cow::Borrowed(&tensor.name[root..]));
    let bare: Vec<Cow<'_, str>> = bare.collect();
    let bare = one_of_each_form(&bare);
    let others = tables.systems().filter(|system| !system.identity);
    let mut pairs = others.flat_map(|system| {
        let families = system.families.iter();
        families.filter_map(move |family| Some((system, tables.family(family)?)))
    });
    match pairs.find(|(system, family)| renamed_by(system, family, &bare) * 2 > bare.len()) {
        None => Ok(()),
        Some((system, _)) => Err(Error::Mapping(format!(
            "names like {} are {}'s, and no table says what family {model_type} makes of them: add one with --mapping FILE",
            tensors[0].origin, system.name
        ))),
    }
}

/// The tensors of a base model under the names that it has alone.
pub fn without_base_prefix(tensors: Vec<MappedTensor>) -> Vec<MappedTensor> {
    let own = |name: &str| name.strip_prefix(BASE_PREFIX).map(Arc::from);
    let rename = |tensor: MappedTensor| MappedTensor {
        name: own(&tensor.name).unwrap_or(tensor.name),
        ..tensor
    };
    tensors.into_iter().map(rename).collect()
}

fn renamed(tensors: &[SourceTensor], name: impl Fn(&str) -> String) -> Vec<SourceTensor> {
    let rename = |tensor: &SourceTensor| tensor.clone().renamed(name(&tensor.name));
    tensors.iter().map(rename).collect()
}

fn listed(tensors: &[SourceTensor]) -> String {
    let shown: Vec<&str> = tensors
        .iter()
        .take(SHOWN)
        .map(|tensor| &*tensor.name)
        .collect();
    match tensors.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// A name in the order in which `layers.2` comes before `layers.10`.
#[derive(PartialEq, Eq)]
pub struct Natural(pub Arc<str>);

impl Ord for Natural {
    fn cmp(&self, other: &Self) -> Ordering {
        natural(&self.0, &other.0)
    }
}

impl PartialOrd for Natural {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

fn natural(a: &str, b: &str) -> Ordering {
    let same = shared_bytes(a.as_bytes(), b.as_bytes());
    let dot = a.as_bytes()[..same].iter().rposition(|byte| *byte == b'.');
    let start = dot.map_or(0, |dot| dot + 1);
    let (one, other) = (component(&a[start..]), component(&b[start..]));
    let order = match (one.parse::<u64>().ok(), other.parse::<u64>().ok()) {
        (Some(one), Some(other)) => one.cmp(&other),
        (one, other) => other.is_some().cmp(&one.is_some()),
    };
    order.then_with(|| one.cmp(other)).then_with(|| a.cmp(b))
}

/// How many bytes both start with, counted by words as long as they last.
fn shared_bytes(a: &[u8], b: &[u8]) -> usize {
    let words = a.as_chunks::<8>().0.iter().zip(b.as_chunks::<8>().0);
    let start = 8 * words.take_while(|(a, b)| a == b).count();
    let rest = a[start..].iter().zip(&b[start..]);
    start + rest.take_while(|(a, b)| a == b).count()
}

fn component(name: &str) -> &str {
    let end = name.bytes().position(|byte| byte == b'.');
    &name[..end.unwrap_or(name.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_count_and_come_before_words() {
        let ordered = [
            "",
            "a",
            "a.02.x",
            "a.2.x",
            "a.10",
            "a.10.b",
            "a.b",
            "a.b-c",
            "a.\u{e9}",
            "a.\u{ea}.b",
            "lm_head.weight",
        ];
        for (i, a) in ordered.iter().enumerate() {
            for (j, b) in ordered.iter().enumerate() {
                assert_eq!(natural(a, b), i.cmp(&j), "{a} {b}");
            }
        }
    }
}
