//! Which system's names a checkpoint has, and which of its tensors they are.

use std::borrow::Cow;

use super::names::spelling::Spelling;
use crate::checkpoint::{Checkpoint, Normalised, State, normalise, one_of_each_form, unwrapped};
use crate::error::{Error, Result};
use crate::mapping::{Family, System, coverage, known};
use crate::tensor::SourceTensor;

/// A system that knows the names of a checkpoint.
pub struct Chosen<'t> {
    pub system: &'t System,
    /// The model's, under the names that the system knows.
    pub tensors: Vec<SourceTensor>,
    /// Where in the state they stand, and what stands beside them.
    pub state: Normalised,
}

/// The system that knows most forms of names. `None` when none knows any.
///
/// # Errors
/// When two know all of them and only the user can tell which it was, or when several entries of the state are models.
pub fn choose<'t>(
    systems: &[&'t System],
    family: &Family,
    tensors: &[SourceTensor],
    wanted: Option<&str>,
    entry: Option<&str>,
    checkpoint: &Checkpoint,
    is_base: bool,
) -> Result<Option<Chosen<'t>>> {
    let systems = possible(systems, wanted, checkpoint);
    // Below a prefix names without that of the base model are a base model's own only where config.json says so.
    let spellings = |is_root: bool| match is_root || is_base {
        true => Spelling::ALL,
        false => &[Spelling::Own],
    };
    let knows =
        |names: &[Cow<'_, str>], is_root: bool| flags(&systems, family, names, spellings(is_root));
    let state = State {
        tensors: tensors.to_vec(),
        dictionaries: Cow::Borrowed(&checkpoint.dictionaries),
        entry,
        keeps_roots: false,
    };
    let mut state = normalise(state, Some(&knows))?;
    let names: Vec<Cow<'_, str>> = state
        .model
        .iter()
        .map(|tensor| unwrapped(&tensor.name))
        .collect();
    let spellings = spellings(state.prefix.is_empty());
    let Some(found) = best(&systems, family, &names, spellings)? else {
        return Ok(None);
    };
    let own = state.model.iter().zip(&names);
    let own = own.map(|(tensor, name)| tensor.clone().renamed(found.spelling.of(name)));
    let tensors = own.collect();
    state.model.clear();
    Ok(Some(Chosen {
        system: found.system,
        tensors,
        state,
    }))
}

/// Which of the names the system knows that knows most of them.
fn flags(
    systems: &[&System],
    family: &Family,
    names: &[Cow<'_, str>],
    spellings: &[Spelling],
) -> Vec<bool> {
    let mut most = vec![false; names.len()];
    let mut count = 0;
    for spelling in spellings {
        let spelled: Vec<Cow<'_, str>> = names.iter().map(|name| spelling.of(name)).collect();
        for system in systems.iter().filter(|system| spelling.may_be(system)) {
            let flags = known(system, family, &spelled);
            let own = flags.iter().filter(|is_known| **is_known).count();
            if own > count {
                (most, count) = (flags, own);
            }
        }
    }
    most
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
    // Names that stand in Hugging Face's table as well are Hugging Face's: other tables leave them as they are.
    let identity = candidates
        .iter()
        .find(|candidate| candidate.system.identity);
    if let Some(first) = identity {
        return Ok(Some(Best {
            system: first.system,
            spelling: first.spelling,
        }));
    }
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
        })),
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
        for system in systems
            .iter()
            .copied()
            .filter(|system| spelling.may_be(system))
        {
            candidates.push(Candidate {
                system,
                spelling,
                known: coverage(system, family, &names),
            });
        }
    }
    candidates
}
