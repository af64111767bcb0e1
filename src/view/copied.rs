//! Tensors that a class holds in memory and does not write: copies of tied weights, and what it never writes.

use super::compare::{Equality, compare, compare_tied};
use super::config::ConfigFile;
use super::note::Note;
use super::tied::Tied;
use crate::checkpoint::form_of;
use crate::error::Result;
use crate::mapping::{Class, Classes, Copied, Place};
use crate::tensor::{SourceTensor, Tensor};

/// Compares a copy with a tensor that it may be tied to.
type Compare = fn(&Tensor, &Tensor) -> Result<Equality>;

/// Takes the tensors out of `own` that the class does not write, and returns the pairs of tied ones.
pub fn leave_out(
    classes: &Classes,
    class: &Class,
    config: &ConfigFile,
    own: &mut Vec<SourceTensor>,
    notes: &mut Vec<Note>,
) -> Result<Vec<Tied>> {
    let said = config.values().get("tie_word_embeddings");
    let said = said.and_then(serde_json::Value::as_bool);
    let compare: Compare = match said {
        Some(true) => compare_tied,
        _ => compare,
    };
    let mut pairs = Vec::new();
    for copied in classes.copied(class) {
        let has_name = classes.has(class, Place::Files, copied.form);
        let is_optional = !copied.by_default || copied.of != Some(copied.form) && has_name;
        if is_optional && !said.unwrap_or(copied.by_default) {
            continue;
        }
        match copied.of {
            None => leave_out_unwritten(class, copied, own, notes),
            Some(of) => pairs.extend(leave_out_tied(copied, of, compare, own, notes)?),
        }
    }
    Ok(pairs)
}

fn leave_out_unwritten(
    class: &Class,
    copied: Copied,
    own: &mut Vec<SourceTensor>,
    notes: &mut Vec<Note>,
) {
    for tensor in own.extract_if(.., |tensor| form_of(&tensor.name).0 == copied.form) {
        let (name, class) = (&tensor.name, class.name);
        notes.push(Note::remark(format!(
            "{name} is left out: {class} never writes it"
        )));
    }
}

fn leave_out_tied(
    copied: Copied,
    of: &str,
    compare: Compare,
    own: &mut Vec<SourceTensor>,
    notes: &mut Vec<Note>,
) -> Result<Vec<Tied>> {
    let (mut pairs, mut at) = (Vec::new(), 0);
    while let Some(tensor) = own.get(at) {
        let (form, numbers) = form_of(&tensor.name);
        let found = match form == copied.form {
            true => original(own, tensor, of, &numbers, compare)?,
            false => None,
        };
        let Some((to, equality)) = found else {
            at += 1;
            continue;
        };
        let copy = own.remove(at);
        let pair = Tied::new(&copy.name, &to, copy.parts.first().cloned());
        notes.extend(pair.notes(equality));
        pairs.push(pair);
    }
    Ok(pairs)
}

/// The tensor that a copy holds the elements of, among those of the form `of`, and how far the two were compared. Of layers
/// that share weights the first has them.
fn original(
    own: &[SourceTensor],
    copy: &SourceTensor,
    of: &str,
    numbers: &[u64],
    compare: Compare,
) -> Result<Option<(String, Equality)>> {
    let is_shared = form_of(&copy.name).0 == of;
    let mut others: Vec<(bool, &SourceTensor)> = Vec::new();
    for other in own.iter().filter(|other| other.name != copy.name) {
        let (form, own) = form_of(&other.name);
        if form == of && (!is_shared || *own < *numbers) {
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
