//! One pass over the names of a state: which entry of it is the model, and the model's names without roots and wrappers.
//!
//! A training state is a dictionary of dictionaries: `{"state_dict": {"backbone.model.norm.weight": ...}, "ema": {...}}`.
//! The entry whose names all are a family's own, below any prefix, is the model: here `state_dict.backbone.`; everything
//! else stands beside it and is named. Where no family is known, dictionaries tell: the one that holds the bulk of the
//! tensors is the model.

mod words;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use foldhash::{HashMap, HashMapExt, HashSet, HashSetExt};

use serde::Serialize;

use crate::error::{Error, Result};
use crate::tensor::SourceTensor;
pub use words::{is_added_head, is_optimizers, is_root, unnumbered, unwrapped};
use words::{is_copy, is_never_weight, may_wrap};

/// A state dict as it was read.
pub struct State<'s> {
    pub tensors: Vec<SourceTensor>,
    /// Prefixes of names, each with its dot, that were keys of dictionaries.
    pub dictionaries: &'s BTreeSet<String>,
    /// The entry that the user named.
    pub entry: Option<&'s str>,
    /// Whether the names are a Hugging Face directory's, so that a root is part of them where no family tells otherwise.
    pub keeps_roots: bool,
}

/// What a state consists of.
#[derive(Debug, Default)]
pub struct Normalised {
    /// The tensors below `prefix`, under their own names there.
    pub model: Vec<SourceTensor>,
    pub prefix: String,
    /// Tensors of other entries.
    pub beside: Vec<SourceTensor>,
    /// State of the model's modules that is never a weight.
    pub buffers: Vec<SourceTensor>,
}

/// Which of some names are a family's own. The second argument tells whether nothing stands above them.
pub type Knows<'k> = dyn Fn(&[Cow<'_, str>], bool) -> Vec<bool> + 'k;

/// Parameters of which Transformer Engine's grouped layers have one for each expert: `linear_fc1.weight12`.
const GROUPED: [&str; 2] = ["weight", "bias"];

/// A name's form and its numbers.
pub fn form_of(name: &str) -> (String, Vec<u64>) {
    let mut numbers = Vec::new();
    let mut form = String::with_capacity(name.len());
    for (i, component) in name.split('.').enumerate() {
        if i > 0 {
            form.push('.');
        }
        match number(component) {
            Some((front, number, back)) => {
                numbers.push(number);
                form.push_str(front);
                form.push_str("{}");
                form.push_str(back);
            }
            None => form.push_str(component),
        }
    }
    (form, numbers)
}

/// The number in a component, and the text around it: all of it, or what follows the name of a grouped parameter.
pub fn number(component: &str) -> Option<(&str, u64, &str)> {
    let front = GROUPED.iter().find(|front| component.starts_with(**front));
    let (front, rest) = component.split_at(front.map_or(0, |front| front.len()));
    let end = rest.find(|char: char| !char.is_ascii_digit());
    let (number, back) = rest.split_at(end.filter(|_| !front.is_empty()).unwrap_or(rest.len()));
    (!number.is_empty()).then_some(())?;
    Some((front, digits(number)?, back))
}

/// The number that a component of plain digits stands for. `007` is no number: it would come out as `7`.
fn digits(component: &str) -> Option<u64> {
    let plain = component.bytes().all(|byte| byte.is_ascii_digit())
        && (component == "0" || !component.starts_with('0'));
    if plain { component.parse().ok() } else { None }
}

/// One name of each form speaks for all layers.
pub fn one_of_each_form<'a>(names: &'a [Cow<'_, str>]) -> Vec<Cow<'a, str>> {
    let mut forms = HashSet::new();
    let is_new = |name: &&Cow<'_, str>| forms.insert(form_of(name).0);
    let samples = names.iter().filter(is_new);
    samples.map(|name| Cow::Borrowed(&**name)).collect()
}

/// Finds the model in a state. `knows` tells which names are its family's, where that is known.
///
/// # Errors
/// When several entries may be the model, or there is none of the user's name.
pub fn normalise(state: State<'_>, knows: Option<&Knows>) -> Result<Normalised> {
    let (state, beside) = state.below_entry()?;
    let mut found = match knows {
        Some(knows) => judged(state, knows)?,
        None => unjudged(state)?,
    };
    found.beside.extend(beside);
    Ok(found)
}

/// An entry of a training state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    pub name: String,
    pub tensors: usize,
    /// Whether it is the model that is shown.
    pub is_shown: bool,
}

impl Normalised {
    /// The model's entry of `tensors` tensors, and those beside it: none where nothing stands beside it.
    pub fn entries(&self, tensors: usize) -> Vec<Entry> {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        let names: Vec<&str> = self.beside.iter().map(|tensor| &*tensor.name).collect();
        let root = any_shared_roots(&names).pop().unwrap_or_default();
        let root = if self.prefix.starts_with(&root) {
            root.len()
        } else {
            0
        };
        for name in &names {
            let end = name[root..].find('.').map_or(name.len(), |dot| root + dot);
            *counts.entry(&name[..end]).or_default() += 1;
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
    fn below_entry(mut self) -> Result<(Self, Vec<SourceTensor>)> {
        let Some(entry) = self.entry else {
            return Ok((self, Vec::new()));
        };
        let prefix = format!("{}.", entry.trim_end_matches('.'));
        let (own, beside): (Vec<_>, Vec<_>) = std::mem::take(&mut self.tensors)
            .into_iter()
            .partition(|tensor| tensor.name.starts_with(&prefix));
        if own.is_empty() {
            let keys: BTreeSet<&str> = beside
                .iter()
                .filter_map(|tensor| Some(tensor.name.split_once('.')?.0))
                .collect();
            let keys: Vec<&str> = keys.into_iter().take(SHOWN).collect();
            let reason = format!("has no entry {entry}: name one of {}", keys.join(", "));
            return Err(Error::Mapping(reason));
        }
        let own = own.into_iter().map(|tensor| below(tensor, &prefix));
        self.tensors = own.collect();
        Ok((self, beside))
    }
}

/// Most entries that a message lists.
const SHOWN: usize = 8;

fn below(tensor: SourceTensor, prefix: &str) -> SourceTensor {
    let name = tensor.name.strip_prefix(prefix).map(str::to_owned);
    match name {
        Some(name) => tensor.renamed(name),
        None => tensor,
    }
}

/// How the names of a model stand in a state.
#[derive(Debug, Default, Clone)]
struct Spelling {
    prefix: String,
    /// A component that an unknown wrapper put between.
    wrapper: Option<String>,
}

impl Spelling {
    fn own<'n>(&self, name: &'n str) -> Option<Cow<'n, str>> {
        let rest = name.strip_prefix(&*self.prefix)?;
        let own = match self.prefix.is_empty() {
            true => rest.into(),
            false => unwrapped(rest),
        };
        Some(match &self.wrapper {
            Some(wrapper) => without(&own, wrapper).into(),
            None => own,
        })
    }
}

fn without(name: &str, wrapper: &str) -> String {
    let kept = name.split('.').filter(|component| *component != wrapper);
    kept.collect::<Vec<_>>().join(".")
}

/// The state of a family that is known.
fn judged(state: State<'_>, knows: &Knows) -> Result<Normalised> {
    let names: Vec<Cow<'_, str>> = state
        .tensors
        .iter()
        .map(|tensor| unwrapped(&tensor.name))
        .collect();
    let judge = Judge::new(&state, &names, knows);
    let spelling = judge.spelling()?;
    let mut found = Normalised {
        prefix: spelling.prefix.clone(),
        ..Normalised::default()
    };
    let owns: Vec<_> = names
        .iter()
        .map(|name| spelling.own(name).map(Cow::into_owned))
        .collect();
    let known = judge.known_names(&owns, &spelling);
    for ((tensor, own), is_known) in state.tensors.iter().zip(owns).zip(known) {
        let tensor = tensor.clone();
        match own {
            None => found.beside.push(tensor),
            Some(own) if is_known => found.model.push(tensor.renamed(own)),
            Some(own) if is_never_weight(&tensor, &own) => found.buffers.push(tensor),
            Some(_) if judge.stands_beside(&tensor) => found.beside.push(tensor),
            Some(own) => found.model.push(tensor.renamed(own)),
        }
    }
    Ok(found)
}

struct Judge<'a> {
    state: &'a State<'a>,
    names: &'a [Cow<'a, str>],
    /// One of each form, by its place among the names.
    samples: Vec<usize>,
    knows: &'a Knows<'a>,
}

/// A prefix, and how many of the samples below it there are and are known.
struct Candidate {
    spelling: Spelling,
    known: usize,
    of: usize,
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
        if !whole.is_empty() {
            return self.chosen(&whole);
        }
        let mut most: Vec<&Candidate> = candidates.iter().chain([&root]).collect();
        most.sort_by_key(|each| {
            (
                std::cmp::Reverse(each.known),
                each.of,
                each.spelling.prefix.len(),
            )
        });
        let wrapped = most
            .iter()
            .take(WRAPPED)
            .find_map(|each| self.unwrapping(&each.spelling));
        if let Some(spelling) = wrapped {
            return Ok(spelling);
        }
        let best = most
            .first()
            .filter(|best| best.known * 2 > best.of && best.known > root.known);
        Ok(best.map_or(&root, |best| best).spelling.clone())
    }

    /// The prefixes of names that hold some share of all forms, the shortest first.
    fn prefixes(&self) -> Vec<String> {
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

    fn weighed(&self, spelling: Spelling) -> Candidate {
        let owns = self
            .samples
            .iter()
            .filter_map(|at| Some((*at, spelling.own(self.names.get(*at)?)?)));
        let (at, owns): (Vec<usize>, Vec<Cow<'_, str>>) = owns.unzip();
        let known = (self.knows)(&owns, spelling.prefix.is_empty());
        let passes = |((at, own), known): ((&usize, &Cow<'_, str>), bool)| {
            let tensor = self.state.tensors.get(*at);
            known
                || tensor.is_some_and(|tensor| {
                    is_never_weight(tensor, own)
                        || spelling.prefix.is_empty() && self.stands_beside(tensor)
                })
        };
        let count = at
            .iter()
            .zip(&owns)
            .zip(known.iter().copied())
            .filter(|each| passes(*each))
            .count();
        let has_own = known.contains(&true);
        Candidate {
            known: if has_own { count } else { 0 },
            of: owns.len(),
            spelling,
        }
    }

    /// Returns whether a tensor that the family does not know stands beside a model without a prefix: a head of reinforcement
    /// learning, or of another dictionary of the state.
    fn stands_beside(&self, tensor: &SourceTensor) -> bool {
        let dictionary =
            |(dot, _): (usize, &str)| self.state.dictionaries.contains(&tensor.name[..=dot]);
        let is_counter = !tensor.name.contains('.')
            && tensor
                .parts
                .iter()
                .all(|part| part.shape().elements() <= 1 || !part.dtype().is_castable());
        is_added_head(&unwrapped(&tensor.name))
            || is_counter
            || tensor.name.match_indices('.').any(dictionary)
    }

    /// The entry among several that hold a model each.
    fn chosen(&self, whole: &[&Candidate]) -> Result<Spelling> {
        let is_own = |each: &&&Candidate| !is_copy(&each.spelling.prefix);
        let mut own: Vec<&&Candidate> = whole.iter().filter(is_own).collect();
        if own.is_empty() {
            own = whole.iter().collect();
        }
        own.sort_by_key(|each| std::cmp::Reverse(self.count(&each.spelling)));
        let (first, rest) = (own.first(), own.get(1));
        let Some(first) = first else {
            return Ok(Spelling::default());
        };
        let count = self.count(&first.spelling);
        if rest.is_some_and(|second| self.count(&second.spelling) * 2 >= count) {
            return Err(several(own.iter().map(|each| &*each.spelling.prefix)));
        }
        let all = whole
            .iter()
            .map(|each| self.count(&each.spelling))
            .sum::<usize>();
        match self.names.len().saturating_sub(all) > count {
            true => Err(several([&*first.spelling.prefix, "others"])),
            false => Ok(first.spelling.clone()),
        }
    }

    fn count(&self, spelling: &Spelling) -> usize {
        let below = |name: &&Cow<'_, str>| name.starts_with(&spelling.prefix);
        self.names.iter().filter(below).count()
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
const WRAPPED: usize = 3;

fn several<'p>(prefixes: impl IntoIterator<Item = &'p str>) -> Error {
    let prefixes: Vec<&str> = prefixes
        .into_iter()
        .take(SHOWN)
        .map(|prefix| prefix.trim_end_matches('.'))
        .collect();
    Error::Mapping(format!(
        "holds several models, below {}: name one with --entry",
        prefixes.join(" and ")
    ))
}

/// The state of a family that is not known, told by its dictionaries and by the roots that training loops use.
fn unjudged(state: State<'_>) -> Result<Normalised> {
    let mut prefix = String::new();
    while let Some(next) = inner(&state, &prefix)? {
        prefix = next;
    }
    let (mut own, beside): (Vec<_>, Vec<_>) = state
        .tensors
        .into_iter()
        .partition(|tensor| tensor.name.starts_with(&prefix));
    for tensor in &mut own {
        let name = unwrapped(&tensor.name[prefix.len()..]).into_owned();
        tensor.name = name.into();
    }
    let mut found = Normalised {
        prefix,
        beside,
        ..Normalised::default()
    };
    let (named, others) = own_names(own, &mut found.prefix, state.keeps_roots);
    found.beside.extend(others);
    let own = named;
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
        .filter_map(|tensor| tensor.name.strip_prefix(prefix))
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

/// How many dictionaries, one in the other, a state keeps all of its weights in above the one that is the model's own.
pub fn containers(paths: &[&[String]]) -> usize {
    let shared = |depth: &usize| {
        let key = |path: &&[String]| path.get(*depth).filter(|_| path.len() > depth + 1).cloned();
        let first = paths.first().and_then(key);
        first.as_deref().is_some_and(is_root) && paths.iter().all(|path| key(path) == first)
    };
    (0..).take_while(shared).count()
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

#[cfg(test)]
mod tests;
