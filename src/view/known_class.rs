//! Families that no table lists, but of which transformers has classes: every name must be one that a class has in files or
//! in memory, and what is shown is what `save_pretrained` writes.

use std::borrow::Cow;
use std::sync::Arc;

use super::config::ConfigFile;
use super::copied;
use super::layers;
use super::names::spelling::Spelling;
use super::names::{self, Natural};
use super::note::Note;
use super::options::Options;
use super::other_class;
use super::reading::{Mapped, Reading};
use crate::checkpoint::{Checkpoint, Normalised, State, form_of, normalise, unwrapped};
use crate::error::{Error, Result};
use crate::mapping::{self, Class, Classes, MappedTensor, Outcome, Place, Tables};
use crate::tensor::SourceTensor;

/// How the names of a state stand to a class.
#[derive(Debug, Clone, Copy)]
struct Way<'c> {
    class: &'c Class,
    place: Place,
    /// Whether they lack the attribute that holds the base model.
    is_base: bool,
}

impl Way<'_> {
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

/// Model types of two models that config.json chooses. Of their classes the names of the default choice are known.
const COMPOSED: [&str; 3] = [
    "encoder-decoder",
    "vision-encoder-decoder",
    "speech-encoder-decoder",
];

/// Returns whether config.json chooses the models that this one is composed of.
pub fn is_composed(config: &ConfigFile) -> bool {
    COMPOSED.contains(&config.model_type())
}

/// Attributes of a composed model.
const PARTS: [&str; 3] = ["encoder.", "decoder.", "enc_to_dec_proj."];

/// Returns whether a name is that of a part of a composed model.
pub fn is_of_part(name: &str) -> bool {
    PARTS.iter().any(|part| name.starts_with(part))
}

/// Returns whether the parts of a composed model hold in memory the names that they write.
pub fn parts_write_as_is(classes: &Classes, config: &ConfigFile) -> bool {
    let types =
        ["encoder", "decoder"].map(|part| config.values().get(part)?.get("model_type")?.as_str());
    let mut types = types.into_iter();
    types.all(|model_type| {
        let of_type = classes.of_type(model_type.unwrap_or_default());
        !of_type.is_empty() && of_type.iter().all(|class| class.writes_as_is())
    })
}

/// The ways in which a state of one of `among` may be named; nothing stands above the names at the root.
fn ways<'c>(among: &[&'c Class], is_root: bool) -> Vec<Way<'c>> {
    let places = [Place::Files, Place::Memory];
    let bases: &[bool] = if is_root { &[false, true] } else { &[false] };
    let all = among.iter().flat_map(|class| {
        let ways = bases
            .iter()
            .flat_map(|is_base| places.map(|place| (*is_base, place)));
        ways.map(|(is_base, place)| Way {
            class,
            place,
            is_base,
        })
    });
    all.filter(|way| !way.is_base || !way.class.base.is_empty())
        .collect()
}

/// Returns whether config.json names a class of another type than its own.
pub fn is_of_another_type(classes: &Classes, config: &ConfigFile) -> bool {
    let declared = config.values().architecture();
    let declared = declared.and_then(|name| classes.class(name));
    declared.is_some_and(|class| class.model_type != config.model_type())
        && !classes.of_type(config.model_type()).is_empty()
}

/// The classes that the tensors may be of: the one that config.json names, unless that is of another type than config.json, then
/// all of its model type. None where the weights are quantized, and so have names of their own.
pub fn groups<'c>(classes: &'c Classes, config: &ConfigFile) -> Vec<Vec<&'c Class>> {
    if config.values().is_quantized() {
        return Vec::new();
    }
    let all = classes.of_type(config.model_type());
    let is_of_type =
        |class: &&Class| all.is_empty() || all.iter().any(|each| std::ptr::eq(*each, *class));
    let declared = config
        .values()
        .architecture()
        .and_then(|name| classes.class(name))
        .filter(is_of_type);
    let declared = declared.into_iter().map(|class| vec![class]);
    declared
        .chain([all])
        .filter(|group| !group.is_empty())
        .collect()
}

/// The tensors of a model of one of these classes; foreign where none of them has all names.
pub fn read(
    checkpoint: &mut Checkpoint,
    tables: &Tables,
    classes: &Classes,
    group: &[&Class],
    config: &ConfigFile,
    options: &Options,
    notes: &mut Vec<Note>,
) -> Result<Reading> {
    let state = match normalised(checkpoint, classes, group, options) {
        Ok(state) => state,
        Err(error) => return Ok(Reading::Foreign(error)),
    };
    let names: Vec<Cow<'_, str>> = state
        .model
        .iter()
        .map(|tensor| Cow::Borrowed(&*tensor.name))
        .collect();
    let ways = ways(group, state.prefix.is_empty());
    let is_cut = is_composed(config) && has_unknown(&state);
    let whole = { ways.iter() }
        .filter(|_| !is_cut)
        .find(|way| way.known(classes, &names).iter().all(|known| *known));
    let Some(way) = whole.filter(|_| !names.is_empty()) else {
        let error = foreign(tables, classes, group, &ways, config, &state);
        return Ok(Reading::Foreign(error));
    };
    let is_said = group.len() == 1
        || options.entry.is_some()
        || checkpoint.dictionaries.contains(&state.prefix);
    if let Some(error) = base_alone(classes, way.class, &state, is_said) {
        return Ok(Reading::Foreign(error));
    }
    checkpoint.tensors.clear();
    let mapped = mapped(classes, *way, state, checkpoint, config, options, notes)?;
    Ok(Reading::Whole(Box::new(mapped)))
}

/// Returns whether tensors in the model's own entry were taken for none of its.
fn has_unknown(state: &Normalised) -> bool {
    let mut beside = state.beside.iter();
    beside.any(|tensor| tensor.name.starts_with(&state.prefix))
}

/// The error about a base model that was found in a model whose head stands beside it. `is_said` tells whether config.json or
/// the user says what is the model.
fn base_alone(
    classes: &Classes,
    class: &Class,
    state: &Normalised,
    is_said: bool,
) -> Option<Error> {
    if state.beside.is_empty() || !classes.is_base(class) {
        return None;
    }
    let prefix = state.prefix.trim_end_matches('.');
    let dot = prefix.rfind('.').map_or(0, |dot| dot + 1);
    let (above, attribute) = prefix.split_at(dot);
    let all = classes.of_type(class.model_type);
    let is_head = |tensor: &&SourceTensor| {
        let own = tensor.name.strip_prefix(above).map(unwrapped);
        own.is_some_and(|own| {
            let form = form_of(&own).0;
            let places = [Place::Files, Place::Memory];
            let mut having = all
                .iter()
                .flat_map(|class| places.map(|place| (class, place)));
            attribute == class.base && having.any(|(class, place)| classes.has(class, place, &form))
        })
    };
    let head = state.beside.iter().find(is_head);
    let beside = head.or_else(|| state.beside.first().filter(|_| !is_said))?;
    Some(Error::Mapping(format!(
        "the names below {prefix} are those of {}, and {} beside them may be its head: give this model's --config-from, or choose with --entry {prefix}",
        class.name, beside.name
    )))
}

/// Returns whether config.json names a class that transformers does not have, whose names are its own affair.
pub fn has_own_code(classes: &Classes, config: &ConfigFile) -> bool {
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
        let all = ways(group, is_root)
            .into_iter()
            .map(|way| way.known(classes, names));
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
        dictionaries: Cow::Borrowed(&checkpoint.dictionaries),
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
    ways: &[Way<'_>],
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
    let flags = ways.iter().map(|way| (way, way.known(classes, &names)));
    let best = flags.max_by_key(|(way, flags)| {
        let known = flags.iter().filter(|known| **known).count();
        (known, way.place == Place::Files, !way.is_base)
    });
    let Some((way, flags)) = best else {
        return Error::Mapping(format!("no class of family {model_type} is known"));
    };
    let own = state.model.iter().zip(&flags);
    let own = own.filter(|(_, known)| !**known).map(|(tensor, _)| tensor);
    let unknown: Vec<&SourceTensor> = match state.model.is_empty() {
        true => state.beside.iter().collect(),
        false => own.collect(),
    };
    if unknown.is_empty() && !state.beside.is_empty() {
        return Error::Mapping(format!(
            "holds a part of {} below {:?}, and beside it {}: give this model's --config-from, or name its entry with --entry",
            way.class.name,
            state.prefix.trim_end_matches('.'),
            names::listed(state.beside.iter())
        ));
    }
    let near = unknown
        .first()
        .map(|tensor| classes.nearest(way.class, &tensor.name))
        .unwrap_or_default();
    let class = match group {
        [class] => class.name,
        _ => way.class.name,
    };
    if unknown.is_empty() {
        return Error::Mapping(format!(
            "no tensor has a name of a class of family {model_type}: give this model's --config-from, or a table with --mapping FILE"
        ));
    }
    let error = Error::Mapping(format!(
        "no class of family {model_type} has names like {}; the nearest of {class} are {}: give this model's --config-from, or a table with --mapping FILE",
        names::listed(unknown.into_iter()),
        near.join(", ")
    ));
    names::or_copy(error, state)
}

fn mapped(
    classes: &Classes,
    way: Way<'_>,
    mut state: Normalised,
    checkpoint: &Checkpoint,
    config: &ConfigFile,
    options: &Options,
    notes: &mut Vec<Note>,
) -> Result<Mapped> {
    notes.extend(names::left_out(&state, options.keep_extra));
    let own = std::mem::take(&mut state.model).into_iter().map(|tensor| {
        let name = way.of(&tensor.name).into_owned();
        tensor.renamed(name)
    });
    let mut own: Vec<SourceTensor> = own.collect();
    let shown = own.len();
    let mut tied = match way.place == Place::Memory || way.class.writes_as_is() {
        true => copied::leave_out(classes, way.class, config, &mut own, notes)?,
        false => Vec::new(),
    };
    let origins: Vec<Option<Arc<str>>> =
        { tied.iter() }.map(|pair| origin(&own, &pair.to)).collect();
    let mut outcome = converted(classes, &way, config, own)?;
    layers::check(classes, way.class, config.values().json(), &outcome.tensors)?;
    notes.extend(other_class::check(
        classes,
        config,
        way.class,
        &outcome.tensors,
    )?);
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
        spelling: Spelling::Own,
    })
}

fn origin(own: &[SourceTensor], name: &str) -> Option<Arc<str>> {
    let mut named = own.iter().filter(|tensor| *tensor.name == *name);
    named.next().map(|tensor| tensor.origin.clone())
}

/// The tensors as the class writes them, every one under a name that it has in files.
fn converted(
    classes: &Classes,
    way: &Way<'_>,
    config: &ConfigFile,
    own: Vec<SourceTensor>,
) -> Result<Outcome> {
    let conversion = match way.place {
        Place::Memory => classes.conversion(way.class)?,
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
        |tensor: &MappedTensor| classes.has(way.class, Place::Files, &form_of(&tensor.name).0);
    match outcome.tensors.iter().find(|tensor| !is_own(tensor)) {
        None => Ok(outcome),
        Some(tensor) => Err(Error::Mapping(format!(
            "{}: no rule says how {} writes it; save the model with save_pretrained",
            tensor.sources.first().map_or("", |name| name),
            way.class.name
        ))),
    }
}
