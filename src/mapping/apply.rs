//! A system's tensors through its rules.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use foldhash::{HashMap, HashMapExt, HashSet};
use smallvec::{SmallVec, smallvec};

use super::config::{Config, ConfigScope};
use super::family::{Family, FamilyTensor, Presence};
use super::index::{Found, Index};
use super::pattern::{Bindings, form_of};
use super::production::{Claim, Production, join};
use super::table::{Rule, System};
use crate::checkpoint::formats::safetensors::name_fault;
use crate::error::{Error, Result};
use crate::tensor::{SourceTensor, Tensor};

/// A tensor of the directory.
#[derive(Debug, Clone)]
pub struct MappedTensor {
    pub name: Arc<str>,
    pub tensor: Tensor,
    /// The names of the tensors that it is made of.
    pub sources: SmallVec<[Arc<str>; 1]>,
}

/// A weight that a rule leaves out.
#[derive(Debug, Clone)]
pub struct Dropped {
    pub source: SourceTensor,
    pub why: String,
    pub unless_zero: bool,
}

/// Where every tensor of the source went.
#[derive(Debug, Default)]
pub struct Outcome {
    pub tensors: Vec<MappedTensor>,
    pub dropped: Vec<Dropped>,
    /// Weights that no rule knows.
    pub unknown: Vec<SourceTensor>,
}

/// How many of `names` the system has a rule for.
pub fn coverage(system: &System, family: &Family, names: &[Cow<'_, str>]) -> usize {
    let index = Index::new(system, family);
    let known = |name: &&Cow<'_, str>| !matches!(index.find(name), Found::Nothing);
    names.iter().filter(known).count()
}

/// How many of `names` the system has a rule for that gives them another name.
pub fn renamed_by(system: &System, family: &Family, names: &[Cow<'_, str>]) -> usize {
    let index = Index::new(system, family);
    let is_renamed = |name: &&Cow<'_, str>| match index.find(name) {
        Found::Rules(rules) => {
            let form = form_of(name).0;
            let mut rules = rules.iter().map(|(number, ..)| &system.rules[*number]);
            rules.any(|rule| rule.to.form() != form)
        }
        _ => false,
    };
    names.iter().filter(is_renamed).count()
}

/// Which of `names` the system has a rule for.
pub fn known(system: &System, family: &Family, names: &[Cow<'_, str>]) -> Vec<bool> {
    let index = Index::new(system, family);
    let is_known = |name: &Cow<'_, str>| !matches!(index.find(name), Found::Nothing);
    names.iter().map(is_known).collect()
}

/// Whether the names are all of a model of this family, and of nothing else.
pub fn is_whole(system: &System, family: &Family, names: &[Cow<'_, str>]) -> bool {
    let index = Index::new(system, family);
    let mut made: HashSet<String> = HashSet::default();
    for name in names {
        match index.find(name) {
            Found::Nothing => return false,
            Found::Dropped(_) => {}
            Found::Itself => drop(made.insert(form_of(name).0)),
            Found::Rules(rules) => {
                let forms = rules
                    .iter()
                    .map(|(number, ..)| system.rules[*number].to.form());
                made.extend(forms);
            }
        }
    }
    let is_made = |tensor: &FamilyTensor| made.contains(&tensor.name.form);
    let needed = |tensor: &&FamilyTensor| matches!(tensor.presence, Presence::Always);
    let counted = |variable: &String| {
        let mut made = family.tensors.iter().filter(|tensor| is_made(tensor));
        made.any(|tensor| tensor.name.variables().any(|own| own == variable))
    };
    family.tensors.iter().filter(needed).all(is_made) && family.variables.keys().all(counted)
}

/// Sends every tensor through the rules of `system`.
///
/// # Errors
/// When an operation does not fit a tensor, when a rule lacks one of its sources, or when two sources claim one name.
pub fn apply(
    system: &System,
    family: &Family,
    config: &Config,
    sources: &[SourceTensor],
) -> Result<Outcome> {
    let index = Index::new(system, family);
    let mut outcome = Outcome::default();
    let mut groups: BTreeMap<(usize, Bindings), Vec<Claim>> = BTreeMap::new();
    for source in sources {
        match index.find(&source.name) {
            Found::Nothing => outcome.unknown.push(source.clone()),
            Found::Itself => outcome.tensors.push(MappedTensor {
                name: system.own_name(&source.name),
                tensor: join(&source.parts, None)?,
                sources: smallvec![source.origin.clone()],
            }),
            Found::Dropped(drop) => outcome.dropped.push(Dropped {
                source: source.clone(),
                why: drop.why.clone(),
                unless_zero: drop.unless_zero,
            }),
            Found::Rules(rules) => {
                let mut is_claimed = false;
                for (number, entry, bindings) in rules {
                    let rule = &system.rules[number];
                    if !holds(rule, family, config)? {
                        continue;
                    }
                    is_claimed = true;
                    let names: Vec<&str> = rule.to.names().collect();
                    let (to, slices) = bindings
                        .into_iter()
                        .partition(|(name, _)| names.contains(&&**name));
                    let claim = Claim {
                        source,
                        entry,
                        slices,
                    };
                    groups.entry((number, to)).or_default().push(claim);
                }
                if !is_claimed {
                    outcome.unknown.push(source.clone());
                }
            }
        }
    }
    for ((number, bindings), claims) in groups {
        let production = Production {
            rule: &system.rules[number],
            config,
            family,
            bindings,
        };
        production.run(&claims, &mut outcome.tensors)?;
    }
    check_names(&outcome.tensors)?;
    Ok(outcome)
}

pub(super) fn holds(rule: &Rule, family: &Family, config: &Config) -> Result<bool> {
    let scope = ConfigScope {
        config,
        defaults: &family.defaults,
        bindings: Bindings::new(),
    };
    let when = rule.when.as_ref();
    when.map_or(Ok(true), |when| when.holds(&scope))
        .map_err(Error::Mapping)
}

/// Sends every tensor under its own name.
pub fn pass_through(sources: Vec<SourceTensor>) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    for source in sources {
        outcome.tensors.push(MappedTensor {
            name: source.name,
            tensor: join(&source.parts, None)?,
            sources: smallvec![source.origin],
        });
    }
    check_names(&outcome.tensors)?;
    Ok(outcome)
}

fn check_names(tensors: &[MappedTensor]) -> Result<()> {
    let mut seen: HashMap<&str, &MappedTensor> = HashMap::with_capacity(tensors.len());
    for tensor in tensors {
        if let Some(fault) = name_fault(&tensor.name) {
            let name = tensor.name.escape_debug();
            return Err(Error::Mapping(format!(
                "tensor {name}: {fault}; save it under another name"
            )));
        }
        if let Some(other) = seen.insert(&tensor.name, tensor) {
            return Err(Error::Mapping(format!(
                "both {} and {} would become {}; save one of them alone",
                other.sources[0], tensor.sources[0], tensor.name
            )));
        }
    }
    Ok(())
}
