//! Which system's names a checkpoint has, below what wrappers and training loops put around them.

pub mod families;

use std::borrow::Cow;
use std::cmp::Ordering;
use std::sync::Arc;

use foldhash::{HashSet, HashSetExt};

use crate::checkpoint::{Checkpoint, any_shared_roots, shared_roots, unwrapped};
use crate::error::{Error, Result};
use crate::mapping::{Family, MappedTensor, System, Tables, coverage, form_of};
use crate::tensor::SourceTensor;

/// What models with a head put before the names of their base.
pub const BASE_PREFIX: &str = "model.";

/// How many names a message shows.
const SHOWN: usize = 6;

/// The system that knows most forms of names, and the tensors under the names that it knows. `None` when none knows any.
///
/// # Errors
/// When two know all of them and only the user can tell which it was.
pub fn choose<'t>(
    systems: &[&'t System],
    family: &Family,
    tensors: &[SourceTensor],
    wanted: Option<&str>,
    checkpoint: &Checkpoint,
) -> Result<Option<(&'t System, Vec<SourceTensor>)>> {
    let bare = tensors.iter().map(|tensor| unwrapped(&tensor.name));
    let bare: Vec<Cow<'_, str>> = bare.collect();
    let samples = one_of_each_form(&bare);
    let is_wanted = |system: &&&System| wanted == Some(&system.name);
    let may_be = |system: &&&System| {
        system.marks.is_empty() || system.marks.iter().any(|mark| checkpoint.has_mark(mark))
    };
    let systems: Vec<&System> = match systems.iter().any(|system| is_wanted(&system)) {
        true => systems.iter().filter(is_wanted).copied().collect(),
        false => systems.iter().filter(may_be).copied().collect(),
    };
    let mut candidates = weighed(&systems, family, &samples, &spellings(&bare));
    let most = candidates.iter().map(|candidate| candidate.known).max();
    candidates.retain(|candidate| candidate.known > 0 && Some(candidate.known) == most);
    let Some(first) = candidates.first() else {
        return Ok(None);
    };
    let (own, all) = (&first.system.name, first.known == samples.len());
    let mut rivals = candidates.iter().map(|candidate| &candidate.system.name);
    match rivals.find(|rival| *rival != own) {
        Some(rival) if all => Err(Error::Mapping(format!(
            "its names could be {own}'s or {rival}'s: pass --system {own} or --system {rival}"
        ))),
        _ => {
            let names = bare.iter().map(|name| first.spelling.of(name));
            let renamed = tensors.iter().cloned().zip(names);
            let renamed = renamed.map(|(tensor, name)| tensor.renamed(name));
            Ok(Some((first.system, renamed.collect())))
        }
    }
}

/// A system whose names a checkpoint's may be.
struct Candidate<'t> {
    system: &'t System,
    spelling: Spelling,
    /// How many of the names it has rules for.
    known: usize,
}

fn weighed<'t>(
    systems: &[&'t System],
    family: &Family,
    names: &[Cow<'_, str>],
    spellings: &[Spelling],
) -> Vec<Candidate<'t>> {
    let mut candidates = Vec::new();
    for spelling in spellings.iter().copied() {
        let names: Vec<Cow<'_, str>> = names.iter().map(|name| spelling.of(name)).collect();
        let may_stand_so = |system: &&System| system.identity || spelling != Spelling::InBase;
        for system in systems.iter().copied().filter(may_stand_so) {
            candidates.push(Candidate {
                system,
                spelling,
                known: coverage(system, family, &names),
            });
        }
    }
    candidates
}

/// The error about names that no system has.
pub fn of_no_system(family: &Family, tensors: &[SourceTensor]) -> Error {
    Error::Mapping(format!(
        "no system is known whose names for family {} are like {}: is the config.json this model's? If so, add a table with --mapping FILE",
        family.name,
        listed(tensors)
    ))
}

/// How names that a system knows stand in a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spelling {
    /// Below a root of so many bytes.
    Below(usize),
    /// As a base model's own, which stand under a prefix in the models built on it; so AutoModel saves them.
    InBase,
}

impl Spelling {
    fn of<'a>(self, name: &'a str) -> Cow<'a, str> {
        match self {
            Self::Below(root) => name[root..].into(),
            Self::InBase => format!("{BASE_PREFIX}{name}").into(),
        }
    }
}

fn spellings(names: &[Cow<'_, str>]) -> Vec<Spelling> {
    let names: Vec<&str> = names.iter().map(|name| &**name).collect();
    let roots = any_shared_roots(&names).into_iter();
    let below = roots.map(|root| Spelling::Below(root.len()));
    below.chain([Spelling::InBase]).collect()
}

/// One name of each form speaks for all layers.
fn one_of_each_form<'a>(names: &'a [Cow<'_, str>]) -> Vec<Cow<'a, str>> {
    let mut forms = HashSet::new();
    let is_new = |name: &&Cow<'_, str>| forms.insert(form_of(name).0);
    let samples = names.iter().filter(is_new);
    samples.map(|name| Cow::Borrowed(&**name)).collect()
}

/// The error about weights that the system's table does not know.
pub fn unknown(system: &System, family: &Family, tensors: &[SourceTensor]) -> Error {
    Error::Mapping(format!(
        "system {} has no rule in family {} for {}: if they belong to it, add a rule with --mapping FILE",
        system.name,
        family.name,
        listed(tensors)
    ))
}

/// Names without wrappers and without a root that a training loop put above them all, told by the model's own parts
/// that then stand first.
pub fn own_names(mut tensors: Vec<SourceTensor>) -> Vec<SourceTensor> {
    for tensor in &mut tensors {
        let name = unwrapped(&tensor.name);
        if name.len() < tensor.name.len() {
            tensor.name = Arc::from(&*name);
        }
    }
    let names: Vec<&str> = tensors.iter().map(|tensor| &*tensor.name).collect();
    let is_root = |root: &&String| {
        let own = |name: &&str| {
            matches!(
                name[root.len()..].split('.').next(),
                Some("model" | "lm_head" | "transformer" | "score")
            )
        };
        root.is_empty() || names.iter().any(own)
    };
    let roots = shared_roots(&names);
    let root = roots.iter().rfind(is_root).map_or(0, String::len);
    match root {
        0 => tensors,
        root => renamed(&tensors, |name| name[root..].to_owned()),
    }
}

/// Refuses names that a system gives to other families: no table says what this family makes of them.
pub fn refuse_foreign(tables: &Tables, model_type: &str, tensors: &[SourceTensor]) -> Result<()> {
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
    match pairs.find(|(system, family)| coverage(system, family, &bare) * 2 > bare.len()) {
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
