//! Names that a family knows, that what is shown lacks, and that stand elsewhere in the state: the model is in two places.

use std::borrow::Cow;

use foldhash::{HashMap, HashMapExt, HashSet};

use super::form::form_of;
use super::words::is_copy;
use super::{Knows, SHOWN};
use crate::error::{Error, Result};

/// Most components above a name of the model's that stands apart from it.
const DEEPEST: usize = 4;

/// Refuses a state of which a part of the model would be left out. `owns` are the model's names, `None` of all others.
pub fn refuse(
    names: &[Cow<'_, str>],
    owns: &[Option<String>],
    known: &[bool],
    knows: &Knows,
) -> Result<()> {
    let shown: HashSet<&str> = { owns.iter().zip(known) }
        .filter_map(|(own, is_known)| own.as_deref().filter(|_| *is_known))
        .collect();
    let others = names.iter().zip(owns).zip(known);
    let others: Vec<&str> = others
        .filter(|((name, own), is_known)| !is_copy(name) && (own.is_none() || !**is_known))
        .map(|((name, _), _)| &**name)
        .collect();
    if shown.is_empty() || others.is_empty() {
        return Ok(());
    }
    let apart = depths(&others, &shown, knows);
    let lost = others.into_iter().filter(|name| {
        let depth = apart.get(&form_of(name).0);
        depth.is_some_and(|depth| !shown.contains(below(name, *depth)))
    });
    let lost: Vec<&str> = lost.take(SHOWN).collect();
    match lost.first() {
        None => Ok(()),
        Some(first) => Err(Error::Mapping(format!(
            "{}: of the model by their names, but apart from the rest of it ({} is missing there): name the model's entry with --entry, or save it in one",
            lost.join(", "),
            below(first, apart.get(&form_of(first).0).copied().unwrap_or(0)),
        ))),
    }
}

/// How many components stand above names of the model's, by the forms of `others` that end with one. The names that are
/// shown are asked for as well, as the family has several ways to spell all.
fn depths(others: &[&str], shown: &HashSet<&str>, knows: &Knows) -> HashMap<String, usize> {
    let mut forms: HashMap<String, &str> = HashMap::new();
    for name in others {
        forms.entry(form_of(name).0).or_insert(name);
    }
    let mut own: HashMap<String, &str> = HashMap::new();
    for name in shown {
        own.entry(form_of(name).0).or_insert(name);
    }
    let ends: Vec<(&String, usize, &str)> = forms
        .iter()
        .flat_map(|(form, name)| {
            let dots = name.matches('.').count().min(DEEPEST);
            (0..=dots).map(move |depth| (form, depth, below(name, depth)))
        })
        .filter(|(_, _, end)| end.contains('.'))
        .collect();
    let all = ends.iter().map(|(_, _, end)| *end).chain(own.into_values());
    let all: Vec<Cow<'_, str>> = all.map(Cow::Borrowed).collect();
    let mut depths = HashMap::new();
    for ((form, depth, _), is_known) in ends.iter().zip(knows(&all, false)) {
        if is_known {
            depths.entry((*form).clone()).or_insert(*depth);
        }
    }
    depths
}

fn below(name: &str, depth: usize) -> &str {
    (0..depth).fold(name, |rest, _| {
        rest.split_once('.').map_or(rest, |(_, below)| below)
    })
}
