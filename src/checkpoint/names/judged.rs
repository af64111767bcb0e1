//! The model of a family that is known: the entry all of whose names are the family's own.

use std::borrow::Cow;
use std::collections::BTreeSet;

use foldhash::{HashMap, HashMapExt, HashSet, HashSetExt};

use super::form::form_of;
use super::words::{is_added_head, is_counter, is_never_weight, may_wrap};
use super::{Knows, Normalised, SHOWN, State, missing};
use crate::error::Result;
use crate::tensor::SourceTensor;

/// How the names of a model stand in a state.
#[derive(Debug, Default, Clone)]
pub(super) struct Spelling {
    pub(super) prefix: String,
    /// A component that an unknown wrapper put between.
    pub(super) wrapper: Option<String>,
}

impl Spelling {
    fn own<'n>(&self, name: &'n str) -> Option<Cow<'n, str>> {
        let rest = name.strip_prefix(&*self.prefix)?;
        Some(match &self.wrapper {
            Some(wrapper) => without(rest, wrapper).into(),
            None => rest.into(),
        })
    }
}

fn without(name: &str, wrapper: &str) -> String {
    let kept = name.split('.').filter(|component| *component != wrapper);
    kept.collect::<Vec<_>>().join(".")
}

/// The state of a family that is known.
pub fn judged(state: State<'_>, knows: &Knows) -> Result<Normalised> {
    let names = state.own_spellings(knows);
    let judge = Judge::new(&state, &names, knows);
    let spelling = judge.spelling()?;
    let mut found = Normalised {
        prefix: spelling.prefix.clone(),
        copy: judge.copy_beside(&spelling),
        ..Normalised::default()
    };
    let owns: Vec<_> = names
        .iter()
        .map(|name| spelling.own(name).map(Cow::into_owned))
        .collect();
    let known = judge.known_names(&owns, &spelling);
    let own_dictionaries = judge.dictionaries_of(
        { state.tensors.iter().zip(&known) }
            .filter(|(_, known)| **known)
            .map(|(tensor, _)| tensor),
    );
    let mut is_understood = true;
    for ((tensor, own), is_known) in state.tensors.iter().zip(&owns).zip(&known) {
        let tensor = tensor.clone();
        match own.as_deref() {
            None => found.beside.push(tensor),
            Some(own) if *is_known => found.model.push(tensor.renamed(own)),
            Some(own) if is_never_weight(&tensor, own) => found.buffers.push(tensor),
            Some(own) if is_added_head(own) => found.beside.push(tensor.renamed(own)),
            Some(_) if judge.stands_beside(&tensor, &own_dictionaries) => found.beside.push(tensor),
            Some(own) => {
                is_understood = false;
                found.model.push(tensor.renamed(own));
            }
        }
    }
    if is_understood {
        missing::refuse(&names, &owns, &known, knows)?;
    }
    Ok(found)
}

pub(super) struct Judge<'a> {
    state: &'a State<'a>,
    pub(super) names: &'a [Cow<'a, str>],
    /// One of each form, by its place among the names.
    samples: Vec<usize>,
    knows: &'a Knows<'a>,
}

/// A prefix, and how many of the samples below it there are and are known.
pub(super) struct Candidate {
    pub(super) spelling: Spelling,
    pub(super) known: usize,
    pub(super) of: usize,
}

impl<'a> Judge<'a> {
    fn new(state: &'a State<'a>, names: &'a [Cow<'a, str>], knows: &'a Knows<'a>) -> Self {
        let mut forms = HashSet::new();
        let is_new = |at: &usize| {
            names
                .get(*at)
                .is_some_and(|name| forms.insert(form_of(name).0))
        };
        let samples = (0..names.len()).filter(is_new).collect();
        Self {
            state,
            names,
            samples,
            knows,
        }
    }

    fn spelling(&self) -> Result<Spelling> {
        let root = self.weighed(Spelling::default());
        if root.known == root.of {
            return Ok(root.spelling);
        }
        let candidates: Vec<Candidate> = self
            .prefixes()
            .into_iter()
            .map(|prefix| {
                self.weighed(Spelling {
                    prefix,
                    wrapper: None,
                })
            })
            .collect();
        let mut whole: Vec<&Candidate> = Vec::new();
        for candidate in candidates
            .iter()
            .filter(|each| each.of > 0 && each.known == each.of)
        {
            let is_inside = |other: &&Candidate| {
                candidate
                    .spelling
                    .prefix
                    .starts_with(&other.spelling.prefix)
            };
            if !whole.iter().any(is_inside) {
                whole.push(candidate);
            }
        }
        let mut most: Vec<&Candidate> = candidates.iter().chain([&root]).collect();
        most.sort_by_key(|each| {
            let length = each.spelling.prefix.len();
            (std::cmp::Reverse(each.known), each.of, length)
        });
        if !whole.is_empty() {
            return self.chosen(&whole, &most);
        }
        let best = most
            .first()
            .filter(|best| best.known * 2 > best.of && best.known > root.known);
        let best = best.map_or(&root, |best| best).spelling.clone();
        // Where a wrapper stands in the middle of names, few or none are known: those that hold the most come first.
        most.sort_by_key(|each| std::cmp::Reverse((each.known, each.of)));
        let mut wrapped = most.iter().take(WRAPPED);
        let wrapped = wrapped.find_map(|each| self.unwrapping(&each.spelling));
        Ok(wrapped.unwrap_or(best))
    }

    /// The prefixes of names that hold some share of all forms, the shortest first.
    pub(super) fn prefixes(&self) -> Vec<String> {
        let mut counts: HashMap<&str, usize> = HashMap::new();
        for name in self.samples.iter().filter_map(|at| self.names.get(*at)) {
            let dots = name.match_indices('.').take(DEEPEST);
            for (dot, _) in dots {
                *counts.entry(&name[..=dot]).or_default() += 1;
            }
        }
        let few = self.samples.len() / SHARE;
        let mut prefixes: Vec<String> = counts
            .into_iter()
            .filter(|(_, count)| *count > few)
            .map(|(prefix, _)| prefix.to_owned())
            .collect();
        prefixes.sort_by(|a, b| (a.len(), a).cmp(&(b.len(), b)));
        prefixes
    }

    pub(super) fn weighed(&self, spelling: Spelling) -> Candidate {
        let owns = self
            .samples
            .iter()
            .filter_map(|at| Some((*at, spelling.own(self.names.get(*at)?)?)));
        let (at, owns): (Vec<usize>, Vec<Cow<'_, str>>) = owns.unzip();
        let known = (self.knows)(&owns, spelling.prefix.is_empty());
        let has_own = known.contains(&true);
        let own_dictionaries = match spelling.prefix.is_empty() && has_own {
            true => self.dictionaries_of(
                { at.iter().zip(&known) }
                    .filter(|(_, known)| **known)
                    .filter_map(|(at, _)| self.state.tensors.get(*at)),
            ),
            false => HashSet::new(),
        };
        let passes = |((at, own), known): ((&usize, &Cow<'_, str>), bool)| {
            let tensor = self.state.tensors.get(*at);
            known
                || tensor.is_some_and(|tensor| {
                    is_never_weight(tensor, own)
                        || is_added_head(own)
                        || spelling.prefix.is_empty()
                            && self.stands_beside(tensor, &own_dictionaries)
                })
        };
        let count = at
            .iter()
            .zip(&owns)
            .zip(known.iter().copied())
            .filter(|each| passes(*each))
            .count();
        Candidate {
            known: if has_own { count } else { 0 },
            of: owns.len(),
            spelling,
        }
    }

    /// Returns whether a tensor that the family does not know stands beside the model: a counter of the training, or of a
    /// dictionary that holds none of the model's names. Where there are no such names, nothing stands beside any.
    fn stands_beside(&self, tensor: &SourceTensor, own: &HashSet<String>) -> bool {
        let mut dictionaries = self.dictionaries_above(tensor);
        let is_counter = !tensor.name.contains('.') && is_counter(tensor);
        is_counter || dictionaries.any(|key| !own.contains(&form_of(key).0))
    }

    fn dictionaries_above<'t>(&self, tensor: &'t SourceTensor) -> impl Iterator<Item = &'t str> {
        let keys = tensor.name.match_indices('.');
        keys.map(|(dot, _)| &tensor.name[..=dot])
            .filter(|key| self.state.dictionaries.contains(*key))
    }

    /// The forms of the dictionaries that hold these tensors: items of a list of layers have one.
    fn dictionaries_of<'t>(
        &self,
        tensors: impl Iterator<Item = &'t SourceTensor>,
    ) -> HashSet<String> {
        let keys: HashSet<&str> = tensors
            .flat_map(|tensor| self.dictionaries_above(tensor))
            .collect();
        keys.into_iter().map(|key| form_of(key).0).collect()
    }

    /// The same prefix with a wrapper's component taken off, where then all names are known.
    fn unwrapping(&self, spelling: &Spelling) -> Option<Spelling> {
        let owns = self
            .samples
            .iter()
            .filter_map(|at| spelling.own(self.names.get(*at)?));
        let wrappers: BTreeSet<String> = owns
            .flat_map(|own| {
                own.split('.')
                    .filter(|part| may_wrap(part))
                    .map(str::to_owned)
                    .collect::<Vec<_>>()
            })
            .collect();
        let mut wrapped = wrappers.into_iter().take(SHOWN).map(|wrapper| {
            self.weighed(Spelling {
                prefix: spelling.prefix.clone(),
                wrapper: Some(wrapper),
            })
        });
        wrapped
            .find(|each| each.of > 0 && each.known == each.of)
            .map(|each| each.spelling)
    }

    /// Which of the model's names the family knows.
    fn known_names(&self, owns: &[Option<String>], spelling: &Spelling) -> Vec<bool> {
        let mut by_form: HashMap<String, bool> = HashMap::new();
        let samples: Vec<Cow<'_, str>> = self
            .samples
            .iter()
            .filter_map(|at| owns.get(*at)?.as_deref().map(Cow::Borrowed))
            .collect();
        for (name, known) in samples
            .iter()
            .zip((self.knows)(&samples, spelling.prefix.is_empty()))
        {
            by_form.insert(form_of(name).0, known);
        }
        let is_known = |own: &Option<String>| {
            own.as_deref()
                .is_some_and(|own| by_form.get(&form_of(own).0).copied().unwrap_or(false))
        };
        owns.iter().map(is_known).collect()
    }
}

/// Most components above a model's names, and the smallest share of all forms that a model has.
const DEEPEST: usize = 6;
const SHARE: usize = 8;
/// How many prefixes are looked at for a wrapper that is not known.
const WRAPPED: usize = 6;
