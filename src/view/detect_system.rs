//! Which system's names a checkpoint has, and which of its tensors they are.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::names::{BASE_PREFIX, one_of_each_form};
use crate::checkpoint::{Checkpoint, any_shared_roots, is_root, unwrapped};
use crate::error::{Error, Result};
use crate::mapping::{Family, System, coverage};
use crate::tensor::SourceTensor;

/// A system that knows the names of a checkpoint.
pub struct Chosen<'t> {
    pub system: &'t System,
    /// The model's, under the names that the system knows.
    pub tensors: Vec<SourceTensor>,
    /// What a training loop keeps beside the model.
    pub beside: Vec<SourceTensor>,
}

/// The system that knows most forms of names. `None` when none knows any.
///
/// # Errors
/// When two know all of them and only the user can tell which it was.
pub fn choose<'t>(
    systems: &[&'t System],
    family: &Family,
    tensors: &[SourceTensor],
    wanted: Option<&str>,
    checkpoint: &Checkpoint,
) -> Result<Option<Chosen<'t>>> {
    let systems = possible(systems, wanted, checkpoint);
    let bare = tensors.iter().map(|tensor| unwrapped(&tensor.name));
    let bare: Vec<Cow<'_, str>> = bare.collect();
    let (whole, entry) = match best(&systems, family, &bare, &spellings(&bare))? {
        Some(whole) if whole.knows_all => (Some(whole), String::new()),
        whole => match model_entry(&systems, family, &bare)? {
            Some((entry, inside)) => (Some(inside), entry),
            None => (whole, String::new()),
        },
    };
    let Some(found) = whole else {
        return Ok(None);
    };
    let (mut own, mut beside) = (Vec::new(), Vec::new());
    for (tensor, name) in tensors.iter().cloned().zip(&bare) {
        match name.strip_prefix(&*entry) {
            Some(name) => own.push(tensor.renamed(found.spelling.of(name))),
            None => beside.push(tensor),
        }
    }
    Ok(Some(Chosen {
        system: found.system,
        tensors: own,
        beside,
    }))
}

/// The systems that the user named, or else those whose marks the checkpoint has.
fn possible<'t>(
    systems: &[&'t System],
    wanted: Option<&str>,
    checkpoint: &Checkpoint,
) -> Vec<&'t System> {
    let is_wanted = |system: &&&System| wanted == Some(&system.name);
    let may_be = |system: &&&System| {
        system.marks.is_empty() || system.marks.iter().any(|mark| checkpoint.has_mark(mark))
    };
    match systems.iter().any(|system| is_wanted(&system)) {
        true => systems.iter().filter(is_wanted).copied().collect(),
        false => systems.iter().filter(may_be).copied().collect(),
    }
}

/// The system that knows most of the names, and how it spells them.
struct Best<'t> {
    system: &'t System,
    spelling: Spelling,
    knows_all: bool,
}

fn best<'t>(
    systems: &[&'t System],
    family: &Family,
    names: &[Cow<'_, str>],
    spellings: &[Spelling],
) -> Result<Option<Best<'t>>> {
    let samples = one_of_each_form(names);
    let mut candidates = weighed(systems, family, &samples, spellings);
    let most = candidates.iter().map(|candidate| candidate.known).max();
    candidates.retain(|candidate| candidate.known > 0 && Some(candidate.known) == most);
    let Some(first) = candidates.first() else {
        return Ok(None);
    };
    let (own, knows_all) = (&first.system.name, first.known == samples.len());
    let mut rivals = candidates.iter().map(|candidate| &candidate.system.name);
    match rivals.find(|rival| *rival != own) {
        Some(rival) if knows_all => Err(Error::Mapping(format!(
            "its names could be {own}'s or {rival}'s: pass --system {own} or --system {rival}"
        ))),
        _ => Ok(Some(Best {
            system: first.system,
            spelling: first.spelling,
            knows_all,
        })),
    }
}

/// The entry of a training state, `model` beside `optimizer` and `loss`, that holds a model by all of its names.
fn model_entry<'t>(
    systems: &[&'t System],
    family: &Family,
    names: &[Cow<'_, str>],
) -> Result<Option<(String, Best<'t>)>> {
    let all: Vec<&str> = names.iter().map(|name| &**name).collect();
    let shared = any_shared_roots(&all).pop().unwrap_or_default();
    let mut entries: BTreeMap<&str, Vec<Cow<'_, str>>> = BTreeMap::new();
    for name in &all {
        let below = name[shared.len()..].split_once('.');
        if let Some((key, rest)) = below.filter(|(key, _)| is_root(key)) {
            entries.entry(key).or_default().push(rest.into());
        }
    }
    let mut models = Vec::new();
    for (key, names) in &entries {
        let inside = best(systems, family, names, &below_roots(names))?;
        models.extend(
            inside
                .filter(|inside| inside.knows_all)
                .map(|inside| (*key, inside)),
        );
    }
    match models.len() {
        0 | 1 => Ok(models
            .pop()
            .map(|(key, inside)| (format!("{shared}{key}."), inside))),
        _ => Err(Error::Mapping(format!(
            "holds several models, below {}: save one of them alone",
            models
                .iter()
                .map(|(key, _)| *key)
                .collect::<Vec<_>>()
                .join(" and ")
        ))),
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

/// How names that a system knows stand in a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spelling {
    /// Below a root of so many bytes.
    Below(usize),
    /// As a base model's own, which stand under a prefix in the models built on it; so AutoModel saves them.
    InBase,
}

impl Spelling {
    pub fn of<'a>(self, name: &'a str) -> Cow<'a, str> {
        match self {
            Self::Below(root) => name[root..].into(),
            Self::InBase => format!("{BASE_PREFIX}{name}").into(),
        }
    }
}

/// All ways in which the names of a checkpoint may stand.
pub fn spellings(names: &[Cow<'_, str>]) -> Vec<Spelling> {
    let mut spellings = below_roots(names);
    spellings.push(Spelling::InBase);
    spellings
}

fn below_roots(names: &[Cow<'_, str>]) -> Vec<Spelling> {
    let names: Vec<&str> = names.iter().map(|name| &**name).collect();
    let roots = any_shared_roots(&names).into_iter();
    roots.map(|root| Spelling::Below(root.len())).collect()
}
