//! Weights of another class than the one that config.json names, and what `from_pretrained` of that one makes of them.
//!
//! It takes a base model's weights into a class with a head, and a headed model's into its base. Whatever else the class has
//! it initializes anew with a warning: right for a head, ruinous for layers.

use std::collections::BTreeSet;

use super::config::ConfigFile;
use super::note::Note;
use crate::checkpoint::form_of;
use crate::error::{Error, Result};
use crate::mapping::{Class, Classes, Lacking, MappedTensor, Place};

/// The component of a form that stands for a number.
const NUMBER: &str = "{}";

/// Returns the warning that the names, which are those of `shown`, fit another class better than the one config.json names.
///
/// # Errors
/// When layers of the class that config.json names would be without weights.
pub fn check(
    classes: &Classes,
    config: &ConfigFile,
    shown: &Class,
    tensors: &[MappedTensor],
) -> Result<Option<Note>> {
    let name = config.values().architecture().unwrap_or(shown.name);
    let all = classes.of_type(shown.model_type);
    let Some(declared) = all.iter().find(|class| class.name == name) else {
        let text = format!("the names are those of {}", shown.name);
        return Ok(Some(Note::remark(text)));
    };
    let forms: BTreeSet<String> = { tensors.iter() }
        .map(|tensor| form_of(&tensor.name).0)
        .collect();
    let own = Fit::new(classes, declared, &forms);
    let others = all.iter().filter(|class| class.name != name);
    let fits = others.map(|class| Fit::new(classes, class, &forms));
    let whole = fits.filter(|fit| fit.unknown.is_empty());
    let Some(closest) = whole.min_by_key(|fit| fit.lacking.len()) else {
        return Ok(None);
    };
    if own.unknown.is_empty() && closest.lacking.len() >= own.lacking.len() {
        return Ok(None);
    }
    let missing: Vec<&Lacking> = { own.lacking.iter() }
        .filter(|part| own.needs(part))
        .filter(|part| !has_part(classes, closest.class, declared, &part.path))
        .filter(|part| !is_tied(classes, config, declared, part))
        .collect();
    verdict(classes, &own, closest.class, &missing)
}

/// Returns the warning, or the refusal, about the parts that are missing.
fn verdict(
    classes: &Classes,
    own: &Fit<'_>,
    closest: &Class,
    missing: &[&Lacking],
) -> Result<Option<Note>> {
    let declared = own.class;
    let text = format!(
        "config.json says {}, but the names are those of {}",
        declared.name, closest.name
    );
    let is_body = |part: &&Lacking| {
        let is_layered = part.has_layers || part.path.contains(NUMBER);
        is_layered && (own.is_in_base(&part.path) || classes.is_base(declared))
    };
    let parts: Vec<String> = { missing.iter() }
        .map(|part| part.path.replace(NUMBER, "N"))
        .collect();
    let parts = parts.join(", ");
    match missing.iter().any(is_body) {
        true => Err(Error::Mapping(format!(
            "{text}, without {parts}: give this model's --config-from"
        ))),
        false if !parts.is_empty() => Ok(Some(Note::warning(format!(
            "{text}, without {parts}: the class of config.json would start with new ones"
        )))),
        false => Ok((!own.unknown.is_empty()).then(|| Note::warning(text))),
    }
}

/// How some names, with or without their base model's attribute, stand to a class.
struct Fit<'c> {
    class: &'c Class,
    /// Forms that it does not have.
    unknown: Vec<&'c str>,
    lacking: Vec<Lacking>,
}

impl<'c> Fit<'c> {
    fn new(classes: &Classes, class: &'c Class, forms: &'c BTreeSet<String>) -> Self {
        let (mut known, mut unknown) = (BTreeSet::new(), Vec::new());
        for form in forms {
            let mut spelled = spellings(form, class.base).into_iter();
            match spelled.find(|form| classes.has(class, Place::Files, form)) {
                Some(form) => _ = known.insert(form),
                None => unknown.push(&**form),
            }
        }
        let lacking = classes.lacking(class, &known);
        Self {
            class,
            unknown,
            lacking,
        }
    }

    /// Returns whether no switch of config.json explains that a part is missing. Those of layers and those deep in a
    /// model come and go by switches, unless other names stand in their place.
    fn needs(&self, part: &Lacking) -> bool {
        let in_layer = part.path.contains(NUMBER);
        let is_top = match self.in_base(&part.path) {
            Some(rest) => !rest.contains('.'),
            None => !part.path.contains('.'),
        };
        match self.unknown.is_empty() {
            true => is_top && !in_layer,
            false => !in_layer || self.unknown.iter().any(|form| form.contains(NUMBER)),
        }
    }

    /// The path behind the base model's attribute.
    fn in_base<'p>(&self, path: &'p str) -> Option<&'p str> {
        path.strip_prefix(self.class.base)?.strip_prefix('.')
    }

    fn is_in_base(&self, path: &str) -> bool {
        path == self.class.base || self.in_base(path).is_some()
    }
}

/// Returns whether `other` has a part of `class`, wherever its base model stands.
fn has_part(classes: &Classes, other: &Class, class: &Class, path: &str) -> bool {
    let spelled = spellings(path, class.base).into_iter();
    let mut all = spelled.flat_map(|path| spellings(&path, other.base));
    all.any(|path| classes.has_path(other, &path))
}

/// A name as it is, in a base model of that attribute, and out of it.
fn spellings(name: &str, base: &str) -> Vec<String> {
    let mut all = vec![name.to_owned()];
    if !base.is_empty() {
        all.push(format!("{base}.{name}"));
        let rest = name
            .strip_prefix(base)
            .and_then(|rest| rest.strip_prefix('.'));
        all.extend(rest.map(str::to_owned));
    }
    all
}

/// Returns whether the part is copies of tied weights, which files do not hold.
fn is_tied(classes: &Classes, config: &ConfigFile, class: &Class, part: &Lacking) -> bool {
    let said = config.values().get("tie_word_embeddings");
    let said = said.and_then(serde_json::Value::as_bool);
    let mut copied = classes.copied(class);
    copied.retain(|copy| said.unwrap_or(copy.by_default));
    // Where the copy stands in memory, files may have another part above it; its module's bias comes and goes by a switch.
    let is_copy = |form: &String| {
        let form = match form.strip_suffix(".bias") {
            Some(module) => format!("{module}.weight"),
            None => form.clone(),
        };
        let mut ends = copied.iter().map(|copy| form.strip_suffix(copy.form));
        ends.any(|above| above.is_some_and(|above| above.is_empty() || above.ends_with('.')))
    };
    !part.has_layers && classes.below(class, &part.path).iter().all(is_copy)
}
