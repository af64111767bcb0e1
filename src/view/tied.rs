//! Tied embeddings: the output head is written when, and only when, config.json says that the model has one of its own.

use serde::Serialize;

use super::compare::{Equality, compare, compare_tied};
use super::note::Note;
use crate::checkpoint::is_copy;
use crate::error::{Error, Result};
use crate::mapping::{self, Config, Family, MappedTensor, Outcome};
use crate::tensor::{SourceTensor, Tensor};

/// Whether the head is missing or holds the embedding's very elements.
pub fn shares_head(family: &Family, tensors: &[MappedTensor]) -> Result<bool> {
    Ok(equality(family, tensors, compare)? != Equality::Different)
}

fn equality(
    family: &Family,
    tensors: &[MappedTensor],
    compare: fn(&Tensor, &Tensor) -> Result<Equality>,
) -> Result<Equality> {
    let find = |name: &str| tensors.iter().find(|tensor| *tensor.name == *name);
    match (find(&family.head), find(&family.embedding)) {
        (None, _) => Ok(Equality::Equal),
        (Some(_), None) => Ok(Equality::Different),
        (Some(head), Some(embedding)) => compare(&head.tensor, &embedding.tensor),
    }
}

/// A tensor that the directory leaves out because another one is it.
#[derive(Debug, Clone, Serialize)]
pub struct Tied {
    pub name: String,
    pub to: String,
    /// The tensor itself, where the checkpoint has it.
    #[serde(skip)]
    pub copy: Option<Tensor>,
}

impl Tied {
    pub(super) fn new(name: &str, to: &str, copy: Option<Tensor>) -> Self {
        let (name, to) = (name.to_owned(), to.to_owned());
        Self { name, to, copy }
    }

    pub(super) fn notes(&self, equality: Equality) -> impl Iterator<Item = Note> {
        let (name, to) = (&self.name, &self.to);
        let left_out = format!("{name} is left out: it is tied to {to}");
        let compared = match equality {
            Equality::Sampled => Some(format!("samples of {name} and {to} were compared")),
            Equality::Unread => Some(format!("{name} was not read from its store")),
            Equality::Different | Equality::Equal => None,
        };
        let compared = compared.map(|how| format!("{how}; verify compares every byte"));
        [Some(left_out), compared]
            .into_iter()
            .flatten()
            .map(Note::remark)
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
        let equality = compare(&head.tensor, &other.tensor)?;
        if equality != Equality::Different {
            let tied = Tied::new(&head.name, &other.name, Some(head.tensor));
            notes.extend(tied.notes(equality));
            return Ok(Some(tied));
        }
    }
    outcome.tensors.insert(at, head);
    Ok(None)
}

/// Drops a head that is the embedding where the config ties them, and adds one where it does not and the source has none.
///
/// # Errors
/// When the config ties a head that differs from the embedding, or when the head may stand beside the model under another name.
pub fn settle(
    family: &Family,
    config: &Config,
    beside: &[SourceTensor],
    outcome: &mut Outcome,
    notes: &mut Vec<Note>,
) -> Result<Option<Tied>> {
    let is_tied = mapping::is_tied(family, config)?;
    let tied = |copy| Tied::new(&family.head, &family.embedding, copy);
    let head = outcome
        .tensors
        .iter()
        .position(|tensor| *tensor.name == *family.head);
    match (is_tied, head) {
        (true, None) => return Ok(config.has_head().then(|| tied(None))),
        (false, Some(_)) => {}
        (true, Some(at)) => {
            let equality = equality(family, &outcome.tensors, compare_tied)?;
            if equality == Equality::Different {
                return Err(Error::Mapping(format!(
                    "config.json ties {} to {}, but they differ; pass --config-from with \"tie_word_embeddings\": false",
                    family.head, family.embedding
                )));
            }
            let tied = tied(Some(outcome.tensors.remove(at).tensor));
            notes.extend(tied.notes(equality));
            return Ok(Some(tied));
        }
        (false, None) if !config.has_head() => {}
        (false, None) => {
            let embedding = outcome
                .tensors
                .iter()
                .find(|tensor| *tensor.name == *family.embedding);
            if let Some(embedding) = embedding.cloned() {
                refuse_replaced(family, &embedding, beside)?;
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

/// Refuses to put a copy of the embedding in place of a head that stands beside the model: a tensor of the embedding's shape
/// that is neither another model's embedding nor a part of a copy.
fn refuse_replaced(
    family: &Family,
    embedding: &MappedTensor,
    beside: &[SourceTensor],
) -> Result<()> {
    let own = embedding.tensor.shape().dims();
    let may_be_head = |tensor: &&SourceTensor| {
        let has_shape = matches!(&*tensor.parts, [part] if part.shape().dims() == own);
        has_shape && !is_copy(&tensor.origin) && !tensor.origin.ends_with(&*family.embedding)
    };
    match beside.iter().find(may_be_head) {
        None => Ok(()),
        Some(tensor) => Err(Error::Mapping(format!(
            "{}: stands beside the model and has the shape of {}, which config.json does not tie and the model lacks; rename it to {}, or name the entry that holds both with --entry",
            tensor.origin, family.head, family.head
        ))),
    }
}
