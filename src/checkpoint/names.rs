//! One pass over the names of a state: which entry of it is the model, and the model's names without roots and wrappers.
//!
//! A training state is a dictionary of dictionaries: `{"state_dict": {"backbone.model.norm.weight": ...}, "ema": {...}}`.
//! The entry whose names all are a family's own, below any prefix, is the model: here `state_dict.backbone.`; everything
//! else stands beside it and is named. Where no family is known, dictionaries tell: the one that holds the bulk of the
//! tensors is the model.

mod chosen;
mod entries;
mod form;
mod judged;
mod missing;
mod roots;
mod unjudged;
mod words;
mod wrapped;

use std::borrow::Cow;
use std::collections::BTreeSet;

use crate::error::{Error, Result};
use crate::tensor::SourceTensor;
pub use entries::Entry;
pub use form::{form_of, number, one_of_each_form};
pub use roots::{any_shared_roots, below_shared, shared_roots};
pub use words::{
    is_added_head, is_copy, is_counter, is_optimizers, optimizers_entry, unnumbered, unwrapped,
};

/// A state dict as it was read.
pub struct State<'s> {
    pub tensors: Vec<SourceTensor>,
    /// Prefixes of names, each with its dot, that were keys of dictionaries.
    pub dictionaries: Cow<'s, BTreeSet<String>>,
    /// The entry that the user named.
    pub entry: Option<&'s str>,
    /// Whether the names are a Hugging Face directory's, so that a root is part of them where no family tells otherwise.
    pub keeps_roots: bool,
}

/// The parts of a state.
#[derive(Debug, Default)]
pub struct Normalised {
    /// The tensors below `prefix`, under their own names there.
    pub model: Vec<SourceTensor>,
    pub prefix: String,
    /// Wrappers around the whole state, which are no part of its entries' names.
    pub outer: String,
    /// The entry beside the model that holds a whole copy of it.
    pub copy: Option<String>,
    /// Tensors of other entries.
    pub beside: Vec<SourceTensor>,
    /// State of the model's modules that is never a weight.
    pub buffers: Vec<SourceTensor>,
}

/// Which of some names are a family's own. The second argument tells whether nothing stands above them.
pub type Knows<'k> = dyn Fn(&[Cow<'_, str>], bool) -> Vec<bool> + 'k;

/// Finds the model in a state. `knows` tells which names are its family's, where that is known.
///
/// # Errors
/// When several entries may be the model, or there is none of the user's name.
pub fn normalise(state: State<'_>, knows: Option<&Knows>) -> Result<Normalised> {
    let (state, beside) = state.below_entry()?;
    let outer = wrapped::outer_wrappers(&state.tensors, "", true).to_owned();
    let mut found = match knows {
        Some(knows) => judged::judged(state, knows)?,
        None => unjudged::unjudged(state)?,
    };
    found.outer = outer;
    found.beside.extend(beside);
    Ok(found)
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

#[cfg(test)]
mod tests;
