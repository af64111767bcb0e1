//! Whether a model is whole whose tensors no table lists, by what its modules and layers tell of one another.
//!
//! The folders that `save_pretrained` writes of each class of transformers follow these laws: a module that has a bias has a weight; a
//! parameter that all other layers have is in each, unless others stand in its place; layers are numbered without a gap; and
//! there are as many of them as config.json says.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use crate::checkpoint::{form_of, number};
use crate::error::{Error, Result};
use crate::mapping::{Class, Classes, MappedTensor, Place};

/// Attributes that hold a model's layers.
const STACKS: [&str; 4] = ["layer", "layers", "h", "block"];
/// Fewer parameters has no layer of a stack, but a step of a sequence.
const LEAST: usize = 4;
/// Keys of config.json for the number of layers; the other two for models with an encoder and a decoder.
const COUNTS: [&str; 4] = ["num_hidden_layers", "n_layer", "n_layers", "num_layers"];
const SIDES: [(&str, [&str; 2]); 2] = [
    ("encoder", ["encoder_layers", "num_encoder_layers"]),
    ("decoder", ["decoder_layers", "num_decoder_layers"]),
];

/// The names in each layer of a stack.
type Layers<'n> = BTreeMap<u64, BTreeSet<&'n str>>;

/// # Errors
/// When a tensor or a layer is missing.
pub fn check(
    classes: &Classes,
    class: &Class,
    config: &Map<String, Value>,
    tensors: &[MappedTensor],
) -> Result<()> {
    let names: BTreeSet<&str> = tensors.iter().map(|tensor| &*tensor.name).collect();
    let copied = classes.copied(class);
    let is_written = |form: &str| {
        classes.has(class, Place::Files, form)
            && !copied.iter().any(|copy| form.ends_with(copy.form))
    };
    let bare = { names.iter() }.find_map(|name| weight_of(&is_written, &names, name));
    bare.map_or(Ok(()), |weight| Err(missing(&weight)))?;
    let stacks = stacks(&names);
    for (stack, layers) in &stacks {
        if let Some(number) = gap(layers) {
            return Err(missing(&format!("{stack}.{number}")));
        }
        let Some((key, count)) = count(config, stack, stacks.keys()) else {
            continue;
        };
        let found = layers.len() as u64;
        if found < count {
            return Err(missing(&format!(
                "layer {found} of {stack}, of which config.json says that {key} is {count},"
            )));
        }
        if found > count && !counts_otherwise(config) {
            return Err(Error::Mapping(format!(
                "{stack} has {found} layers, but config.json says that {key} is {count}; give this model's --config-from"
            )));
        }
        if let Some(name) = absent(layers) {
            return Err(missing(&format!("{stack}.{name}")));
        }
    }
    Ok(())
}

fn missing(name: &str) -> Error {
    Error::Mapping(format!(
        "{name} is missing: the checkpoint is incomplete; take another save, or give this model's --config-from"
    ))
}

/// The weight that is missing beside a bias. One that is tied or normalised has no file of its own.
fn weight_of(
    is_written: &dyn Fn(&str) -> bool,
    names: &BTreeSet<&str>,
    bias: &str,
) -> Option<String> {
    let module = bias
        .strip_suffix("bias")
        .filter(|module| module.ends_with('.'))?;
    let weight = format!("{module}weight");
    let has = |start: &str| {
        let start = format!("{module}{start}");
        let mut next = names.range(&*start..);
        next.next().is_some_and(|name| name.starts_with(&*start))
    };
    let is_needed = !has("weight") && !has("parametrizations");
    (is_needed && is_written(&form_of(&weight).0)).then_some(weight)
}

/// The layers by the attributes that hold them.
fn stacks<'n>(names: &BTreeSet<&'n str>) -> BTreeMap<&'n str, Layers<'n>> {
    let mut stacks: BTreeMap<&str, Layers<'_>> = BTreeMap::new();
    for (stack, number, rest) in names.iter().filter_map(|name| in_layer(name)) {
        let layers = stacks.entry(stack).or_default();
        layers.entry(number).or_default().insert(rest);
    }
    stacks.retain(|stack, layers| {
        let attribute = stack.rsplit('.').next();
        let is_large = layers.values().any(|layer| layer.len() >= LEAST);
        is_large && attribute.is_some_and(|attribute| STACKS.contains(&attribute))
    });
    stacks
}

/// A name's attribute of layers, its layer's number, and the name there.
fn in_layer(name: &str) -> Option<(&str, u64, &str)> {
    let mut dots = name.match_indices('.').map(|(dot, _)| dot);
    dots.find_map(|dot| {
        let (stack, rest) = (name.get(..dot)?, name.get(dot + 1..)?);
        let (layer, rest) = rest.split_once('.')?;
        match number(layer) {
            Some(("", number, "")) => Some((stack, number, rest)),
            _ => None,
        }
    })
}

/// The number that is left out between two layers with the same parameters.
fn gap(layers: &Layers<'_>) -> Option<u64> {
    let forms = |layer: &BTreeSet<&str>| -> BTreeSet<String> {
        layer.iter().map(|name| form_of(name).0).collect()
    };
    let mut pairs = layers.iter().zip(layers.iter().skip(1));
    pairs.find_map(|((before, one), (after, other))| {
        let is_gap = before + 1 < *after && one.len() >= LEAST && forms(one) == forms(other);
        is_gap.then_some(before + 1)
    })
}

/// The number of layers that config.json says a stack has, and its key; none where several may be meant.
fn count<'n>(
    config: &Map<String, Value>,
    stack: &str,
    mut stacks: impl Iterator<Item = &'n &'n str> + Clone,
) -> Option<(String, u64)> {
    let has_part = |value: &Value| value.get("model_type").is_some();
    if config.values().any(has_part) {
        return None;
    }
    let value = |key: &&str| Some(((*key).to_owned(), config.get(*key)?.as_u64()?));
    let is_sided = SIDES
        .iter()
        .flat_map(|(_, keys)| keys)
        .any(|key| value(key).is_some());
    let is_of = |stack: &str, side: &str| stack.split('.').any(|part| part == side);
    let is_other = |key: &String| {
        let own = key.strip_suffix("coder_layers");
        own.is_some_and(|own| !["en", "de", "num_en", "num_de"].contains(&own))
    };
    if !is_sided {
        let is_only = stacks.clone().count() == 1;
        return COUNTS.iter().filter(|_| is_only).find_map(value);
    }
    let mut sides = SIDES.iter().filter(|(side, _)| is_of(stack, side));
    let ((side, keys), None) = (sides.next()?, sides.next()) else {
        return None;
    };
    let is_only = stacks.all(|other| *other == stack || !is_of(other, side));
    if !is_only || config.keys().any(is_other) {
        return None;
    }
    let of_both = COUNTS.iter().filter(|_| *side == "encoder");
    keys.iter().chain(of_both).find_map(value)
}

/// Whether a model may have layers of which the count does not tell: those that predict tokens after the next, and the stages
/// of a hierarchy, of which `depths` tells.
fn counts_otherwise(config: &Map<String, Value>) -> bool {
    let is_other = |key: &String| key == "depths" || key.contains("nextn") || key.contains("mtp");
    config.keys().any(is_other)
}

/// The name of a parameter that one layer lacks and all others have, though nothing else stands in its place.
fn absent(layers: &Layers<'_>) -> Option<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for name in layers.values().flatten() {
        *counts.entry(name).or_default() += 1;
    }
    let is_in_all = |name: &str| counts.get(name) == Some(&layers.len());
    let rare = counts
        .iter()
        .filter(|(_, count)| **count + 1 == layers.len());
    for (name, _) in rare {
        let Some((module, leaf)) = name.rsplit_once('.') else {
            continue;
        };
        let sibling = match leaf {
            "weight" => format!("{module}.bias"),
            "bias" => format!("{module}.weight"),
            _ => continue,
        };
        let mut lacking = layers.iter().filter(|(_, layer)| !layer.contains(name));
        let Some((number, layer)) = lacking.next() else {
            continue;
        };
        let parent = module
            .rsplit_once('.')
            .map(|(parent, _)| format!("{parent}."));
        let is_beside = |parent: String| {
            let mut own = layer
                .iter()
                .filter(|own| own.starts_with(&parent))
                .peekable();
            layers.len() > 2 && own.peek().is_some() && own.all(|own| is_in_all(own))
        };
        if is_in_all(&sibling) || parent.is_some_and(is_beside) {
            return Some(format!("{number}.{name}"));
        }
    }
    None
}
