//! Tied embeddings: the output head is written when, and only when, config.json says that the model has one of its own.

use serde::Serialize;

use super::Note;
use super::compare::are_equal;
use crate::error::{Error, Result};
use crate::mapping::{self, Config, Family, MappedTensor, Outcome};

/// Whether the head is missing or holds the embedding's very elements.
pub fn shares_head(family: &Family, tensors: &[MappedTensor]) -> Result<bool> {
    let find = |name: &str| tensors.iter().find(|tensor| *tensor.name == *name);
    match (find(&family.head), find(&family.embedding)) {
        (None, _) => Ok(true),
        (Some(_), None) => Ok(false),
        (Some(head), Some(embedding)) => are_equal(&head.tensor, &embedding.tensor),
    }
}

/// A tensor that the directory leaves out because another one is it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tied {
    pub name: String,
    pub to: String,
}

impl Tied {
    fn note(&self) -> Note {
        Note::remark(format!(
            "{} is left out: it is tied to {}",
            self.name, self.to
        ))
    }
}

/// Drops a head that holds an embedding's very elements, where the config ties them and no table says which embedding.
pub fn drop_copy(
    family: Option<&Family>,
    config: &Config,
    outcome: &mut Outcome,
    notes: &mut Vec<Note>,
) -> Result<Option<Tied>> {
    let head = family.map_or("lm_head.weight", |family| &family.head);
    let tied = match family {
        Some(family) => mapping::is_tied(family, config)?,
        None => config.get("tie_word_embeddings") == Some(&true.into()),
    };
    let at = outcome
        .tensors
        .iter()
        .position(|tensor| *tensor.name == *head);
    let Some(at) = at.filter(|_| tied) else {
        return Ok(None);
    };
    let head = outcome.tensors.remove(at);
    for other in &outcome.tensors {
        if are_equal(&head.tensor, &other.tensor)? {
            let tied = Tied {
                name: head.name.to_string(),
                to: other.name.to_string(),
            };
            notes.push(tied.note());
            return Ok(Some(tied));
        }
    }
    outcome.tensors.insert(at, head);
    Ok(None)
}

/// Drops a head that is the embedding where the config ties them, and adds one where it does not and the source has none.
///
/// # Errors
/// When the config ties a head that differs from the embedding.
pub fn settle(
    family: &Family,
    config: &Config,
    outcome: &mut Outcome,
    notes: &mut Vec<Note>,
) -> Result<Option<Tied>> {
    let is_tied = mapping::is_tied(family, config)?;
    let tied = Tied {
        name: family.head.clone(),
        to: family.embedding.clone(),
    };
    let head = outcome
        .tensors
        .iter()
        .position(|tensor| *tensor.name == *family.head);
    match (is_tied, head) {
        (true, None) => return Ok(config.has_head().then_some(tied)),
        (false, Some(_)) => {}
        (true, Some(at)) => {
            if !shares_head(family, &outcome.tensors)? {
                return Err(Error::Mapping(format!(
                    "config.json ties {} to {}, but they differ; pass --config-from with \"tie_word_embeddings\": false",
                    family.head, family.embedding
                )));
            }
            outcome.tensors.remove(at);
            notes.push(tied.note());
            return Ok(Some(tied));
        }
        (false, None) if !config.has_head() => {}
        (false, None) => {
            let embedding = outcome
                .tensors
                .iter()
                .find(|tensor| *tensor.name == *family.embedding);
            if let Some(embedding) = embedding.cloned() {
                notes.push(Note::warning(format!(
                    "{} is a copy of {}: the checkpoint has none, and config.json does not tie them",
                    family.head, family.embedding
                )));
                outcome.tensors.push(MappedTensor {
                    name: (&*family.head).into(),
                    ..embedding
                });
            }
        }
    }
    Ok(None)
}
