//! Families that no table lists, but of which transformers has classes: every name must be one that a class has in files or
//! in memory, and what is shown is what `save_pretrained` writes.

use std::borrow::Cow;
use std::sync::Arc;

use super::compare::{Equality, compare};
use super::config::ConfigFile;
use super::names::{self, Natural};
use super::options::Options;
use super::tied::Tied;
use super::{Mapped, Note};
use crate::checkpoint::{Checkpoint, Normalised, State, form_of, normalise};
use crate::error::{Error, Result};
use crate::mapping::{self, Class, Classes, Copied, MappedTensor, Outcome, Place, Tables, nearest};
use crate::tensor::SourceTensor;

/// How the names of a state stand to a class.
#[derive(Debug, Clone, Copy)]
struct Reading<'c> {
    class: &'c Class,
    place: Place,
    /// Whether they lack the attribute that holds the base model.
    is_base: bool,
}

impl Reading<'_> {
    fn of<'n>(&self, name: &'n str) -> Cow<'n, str> {
        match self.is_base {
            true => format!("{}.{name}", self.class.base).into(),
            false => name.into(),
        }
    }

    fn known(&self, classes: &Classes, names: &[Cow<'_, str>]) -> Vec<bool> {
        let names: Vec<Cow<'_, str>> = names.iter().map(|name| self.of(name)).collect();
        classes.known(self.class, self.place, names.iter().map(|name| &**name))
    }
}

/// The ways in which a state of one of `among` may be named; nothing stands above the names at the root.
fn readings<'c>(among: &[&'c Class], is_root: bool) -> Vec<Reading<'c>> {
    let places = [Place::Files, Place::Memory];
    let bases: &[bool] = if is_root { &[false, true] } else { &[false] };
    let all = among.iter().flat_map(|class| {
        let ways = bases
            .iter()
            .flat_map(|is_base| places.map(|place| (*is_base, place)));
        ways.map(|(is_base, place)| Reading {
            class,
            place,
            is_base,
        })
    });
    all.filter(|reading| !reading.is_base || !reading.class.base.is_empty())
        .collect()
}

/// The classes that the tensors may be of: the one that config.json names, then all of its model type.
pub fn candidates<'c>(classes: &'c Classes, config: &'c ConfigFile) -> Vec<Vec<&'c Class>> {
    let declared = config
        .values()
        .architecture()
        .and_then(|name| classes.class(name));
    let all: Vec<&Class> = classes.of_type(config.model_type()).collect();
    let declared = declared.into_iter().map(|class| vec![class]);
    declared
        .chain([all])
        .filter(|group| !group.is_empty())
        .collect()
}

/// The tensors of a model of one of these classes; none where its config names code of its own and no class has all names.
pub fn map(
    checkpoint: &mut Checkpoint,
    tables: &Tables,
    classes: &Classes,
    groups: &[Vec<&Class>],
    config: &ConfigFile,
    options: &Options,
    notes: &mut Vec<Note>,
) -> Result<Option<Mapped>> {
    let mut refused = None;
    for group in groups {
        let state = normalised(checkpoint, classes, group, options);
        let state = match state {
            Ok(state) => state,
            Err(error) => {
                refused = refused.or(Some(error));
                continue;
            }
        };
        let names: Vec<Cow<'_, str>> = state
            .model
            .iter()
            .map(|tensor| Cow::Borrowed(&*tensor.name))
            .collect();
        let readings = readings(group, state.prefix.is_empty());
        let whole = readings
            .iter()
            .find(|reading| reading.known(classes, &names).iter().all(|known| *known));
        match whole {
            Some(reading)
                if !names.is_empty() && !parts(checkpoint, classes, reading, group, &state) =>
            {
                checkpoint.tensors.clear();
                return mapped(classes, *reading, state, checkpoint, config, options, notes)
                    .map(Some);
            }
            _ => {
                let error = foreign(tables, classes, group, &readings, config, &state);
                refused = refused.or(Some(error));
            }
        }
    }
    let is_others = || {
        let family = tables.unknown_family(config.model_type());
        family.is_some_and(|family| {
            names::other_system(tables, family, &checkpoint.tensors).is_some()
        })
    };
    match refused {
        Some(_) if is_others() => Ok(None),
        Some(error) if !has_own_code(classes, config) => Err(error),
        _ => Ok(None),
    }
}

/// Returns whether the base model alone was found in a model whose head then stands beside it.
fn parts(
    checkpoint: &Checkpoint,
    classes: &Classes,
    reading: &Reading<'_>,
    group: &[&Class],
    state: &Normalised,
) -> bool {
    let class = reading.class;
    let attribute = state.prefix.trim_end_matches('.').rsplit('.').next();
    let is_said = group.len() == 1 || checkpoint.dictionaries.contains(&state.prefix);
    let is_part = attribute == Some(class.base) || !is_said;
    !state.beside.is_empty() && is_part && classes.is_base(class)
}

/// Returns whether config.json names a class that transformers does not have, whose names are its own affair.
fn has_own_code(classes: &Classes, config: &ConfigFile) -> bool {
    let values = config.values();
    let is_known = |name: &str| classes.class(name).is_some();
    values.get("auto_map").is_some() || values.architecture().is_some_and(|name| !is_known(name))
}

fn normalised(
    checkpoint: &Checkpoint,
    classes: &Classes,
    group: &[&Class],
    options: &Options,
) -> Result<Normalised> {
    let knows = |names: &[Cow<'_, str>], is_root: bool| {
        let all = readings(group, is_root)
            .into_iter()
            .map(|reading| reading.known(classes, names));
        let count = |flags: &Vec<bool>| flags.iter().filter(|known| **known).count();
        let most = all.reduce(|most, next| {
            if count(&next) > count(&most) {
                next
            } else {
                most
            }
        });
        most.unwrap_or_else(|| vec![false; names.len()])
    };
    let state = State {
        tensors: checkpoint.tensors.clone(),
        dictionaries: &checkpoint.dictionaries,
        entry: options.entry.as_deref(),
        keeps_roots: checkpoint.is_hugging_face(),
    };
    normalise(state, Some(&knows))
}

/// The error about names that no class of the family has.
fn foreign(
    tables: &Tables,
    classes: &Classes,
    group: &[&Class],
    readings: &[Reading<'_>],
    config: &ConfigFile,
    state: &Normalised,
) -> Error {
    let model_type = config.model_type();
    if let Err(error) = names::refuse_foreign(tables, model_type, &state.model) {
        return error;
    }
    let names: Vec<Cow<'_, str>> = state
        .model
        .iter()
        .map(|tensor| Cow::Borrowed(&*tensor.name))
        .collect();
    let flags = readings
        .iter()
        .map(|reading| (reading, reading.known(classes, &names)));
    let best = flags.max_by_key(|(reading, flags)| {
        let known = flags.iter().filter(|known| **known).count();
        (known, reading.place == Place::Files, !reading.is_base)
    });
    let Some((reading, flags)) = best else {
        return Error::Mapping(format!("no class of family {model_type} is known"));
    };
    let unknown: Vec<&SourceTensor> = state
        .model
        .iter()
        .zip(&flags)
        .filter(|(_, known)| !**known)
        .map(|(tensor, _)| tensor)
        .collect();
    let near = unknown
        .first()
        .map(|tensor| classes.nearest(reading.class, &tensor.name))
        .unwrap_or_default();
    let class = match group {
        [class] => class.name,
        _ => reading.class.name,
    };
    Error::Mapping(format!(
        "no class of family {model_type} has names like {}; the nearest of {class} are {}: give this model's --config-from, or a table with --mapping FILE",
        names::listed(unknown.into_iter()),
        near.join(", ")
    ))
}

fn mapped(
    classes: &Classes,
    reading: Reading<'_>,
    mut state: Normalised,
    checkpoint: &Checkpoint,
    config: &ConfigFile,
    options: &Options,
    notes: &mut Vec<Note>,
) -> Result<Mapped> {
    notes.extend(names::left_out(&state, options.keep_extra));
    if config
        .values()
        .architecture()
        .is_some_and(|name| name != reading.class.name)
    {
        notes.push(Note::remark(format!(
            "the names are those of {}",
            reading.class.name
        )));
    }
    let own = std::mem::take(&mut state.model).into_iter().map(|tensor| {
        let name = reading.of(&tensor.name).into_owned();
        tensor.renamed(name)
    });
    let mut own: Vec<SourceTensor> = own.collect();
    let shown = own.len();
    let mut tied = match reading.place == Place::Memory || reading.class.writes_as_is() {
        true => drop_copies(
            &classes.copied(reading.class),
            classes,
            &reading,
            config,
            &mut own,
            notes,
        )?,
        false => Vec::new(),
    };
    let origins: Vec<Option<Arc<str>>> =
        { tied.iter() }.map(|pair| origin(&own, &pair.to)).collect();
    let mut outcome = converted(classes, &reading, config, own)?;
    for (pair, origin) in tied.iter_mut().zip(origins) {
        let mut tensors = outcome.tensors.iter();
        let is_to = |tensor: &&MappedTensor| matches!(&*tensor.sources, [one] if Some(one) == origin.as_ref());
        if let Some(to) = tensors.find(is_to) {
            pair.to = to.name.to_string();
        }
    }
    if !checkpoint.has_own_order() {
        let name = |tensor: &MappedTensor| Natural(tensor.name.clone());
        outcome.tensors.sort_by_cached_key(name);
    }
    if options.keep_extra {
        outcome.tensors.extend(names::extra(&state)?);
    }
    Ok(Mapped {
        system: "huggingface".to_owned(),
        entries: state.entries(shown),
        outcome,
        tied,
    })
}

fn origin(own: &[SourceTensor], name: &str) -> Option<Arc<str>> {
    let mut named = own.iter().filter(|tensor| *tensor.name == *name);
    named.next().map(|tensor| tensor.origin.clone())
}

/// The tensors as the class writes them, every one under a name that it has in files.
fn converted(
    classes: &Classes,
    reading: &Reading<'_>,
    config: &ConfigFile,
    own: Vec<SourceTensor>,
) -> Result<Outcome> {
    let conversion = match reading.place {
        Place::Memory => classes.conversion(reading.class)?,
        Place::Files => None,
    };
    let outcome = match conversion
        .as_ref()
        .and_then(|conversion| conversion.parts())
    {
        Some((family, system)) => mapping::apply(system, family, config.values(), &own)?,
        None => mapping::pass_through(own)?,
    };
    let is_own =
        |tensor: &MappedTensor| classes.has(reading.class, Place::Files, &form_of(&tensor.name).0);
    match outcome.tensors.iter().find(|tensor| !is_own(tensor)) {
        None => Ok(outcome),
        Some(tensor) => Err(Error::Mapping(format!(
            "{}: no rule says how {} writes it; save the model with save_pretrained",
            tensor.sources.first().map_or("", |name| name),
            reading.class.name
        ))),
    }
}

/// Takes the copies of tied weights out, and what the class never writes.
fn drop_copies(
    copied: &[Copied],
    classes: &Classes,
    reading: &Reading<'_>,
    config: &ConfigFile,
    own: &mut Vec<SourceTensor>,
    notes: &mut Vec<Note>,
) -> Result<Vec<Tied>> {
    let mut tied = Vec::new();
    for copy in copied {
        let is_optional = classes.has(reading.class, Place::Files, copy.form);
        let said = config
            .values()
            .get("tie_word_embeddings")
            .and_then(serde_json::Value::as_bool);
        if is_optional && !said.unwrap_or(copy.by_default) {
            continue;
        }
        let mut at = 0;
        while let Some(tensor) = own.get(at) {
            let (form, numbers) = form_of(&tensor.name);
            let to = match copy.of {
                _ if form != copy.form => None,
                None => Some(None),
                Some(of) => original(own, tensor, of, &numbers)?.map(Some),
            };
            match to {
                None => at += 1,
                Some(to) => {
                    let copy = own.remove(at);
                    match to {
                        Some((to, equality)) => {
                            let pair = Tied::new(&copy.name, &to, copy.parts.first().cloned());
                            notes.extend(pair.notes(equality));
                            tied.push(pair);
                        }
                        None => notes.push(Note::remark(format!(
                            "{} is left out: {} never writes it",
                            copy.name, reading.class.name
                        ))),
                    }
                }
            }
        }
    }
    Ok(tied)
}

/// The tensor that a copy holds the elements of, among those of the form `of`, and how far the two were compared.
fn original(
    own: &[SourceTensor],
    copy: &SourceTensor,
    of: &str,
    numbers: &[u64],
) -> Result<Option<(String, Equality)>> {
    let mut others: Vec<(bool, &SourceTensor)> = Vec::new();
    for other in own.iter().filter(|other| other.name != copy.name) {
        let (form, own) = form_of(&other.name);
        if form == of {
            others.push((own == numbers, other));
        }
    }
    others.sort_by_key(|(is_same, _)| !is_same);
    for (_, other) in others {
        if let ([one], [two]) = (&*copy.parts, &*other.parts) {
            let equality = compare(one, two)?;
            if equality != Equality::Different {
                return Ok(Some((other.name.to_string(), equality)));
            }
        }
    }
    Ok(None)
}

/// The names of a listed family that are nearest to one that it does not have.
pub fn nearest_of(family: &mapping::Family, name: &str) -> Vec<String> {
    nearest(name, family.tensors.iter().map(|tensor| &*tensor.name.form))
}
