//! Names below what wrappers and training loops put around them, their order, and errors that list them.

pub mod families;
pub mod spelling;

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::note::Note;
use crate::checkpoint::{
    Normalised, any_shared_roots, form_of, is_added_head, is_counter, one_of_each_form,
    shared_roots, unwrapped,
};
use crate::error::{Error, Result};
use crate::mapping::{self, Family, MappedTensor, System, Tables, coverage, nearest, renamed_by};
use crate::tensor::SourceTensor;

/// Names, digits as `{}`, that only one system gives, whose tables know none of some families.
const SIGNATURES: [(&str, &str); 14] = [
    ("litgpt", "transformer.h.{}.attn.qkv.weight"),
    ("litgpt", "transformer.h.{}.attn.attn.weight"),
    ("torchtitan", "layers.{}.attention.wq.weight"),
    ("torchtune", "layers.{}.sa_norm.scale"),
    (
        "megatron",
        "decoder.layers.{}.self_attention.linear_qkv.weight",
    ),
    (
        "megatron",
        "decoder.layers.self_attention.linear_qkv.weight",
    ),
    (
        "megatron",
        "decoder.layers.{}.self_attention.linear_proj.weight",
    ),
    (
        "megatron",
        "decoder.layers.self_attention.linear_proj.weight",
    ),
    ("megatron", "decoder.layers.{}.mixer.in_proj.weight"),
    ("nanotron", "pp_block.attn.qkv_proj.weight"),
    ("olmo-core", "blocks.{}.attention.w_out.weight"),
    ("olmo-core", "lm_head.w_out.weight"),
    ("prime-rl", "layers.{}.mlp.experts.w1"),
    ("torchtitan", "layers.{}.attention.qkv_linear.wqkv.weight"),
];

/// How many names a message shows.
const SHOWN: usize = 6;

/// The error about names that no system has.
pub fn of_no_system(tables: &Tables, family: &Family, tensors: &[SourceTensor]) -> Error {
    if tables.speaks_of(family) {
        return Error::Mapping(format!(
            "no system of --mapping's table has a rule in family {} for {}: add rules for them",
            family.name,
            listed(tensors.iter())
        ));
    }
    Error::Mapping(format!(
        "no system is known whose names for family {} are like {}: is the config.json this model's? If so, add a table with --mapping FILE",
        family.name,
        listed(tensors.iter())
    ))
}

/// The error about weights that the system's table does not know.
pub fn unknown(
    tables: &Tables,
    system: &System,
    family: &Family,
    tensors: &[SourceTensor],
) -> Error {
    let first = tensors.first().map_or("", |tensor| &tensor.name);
    let near = nearest_of(family, first);
    Error::Mapping(format!(
        "{}system {} has no rule in family {} for {}, the nearest names are {}: if they belong to it, add a rule with --mapping FILE",
        tables.place(system),
        system.name,
        family.name,
        listed(tensors.iter()),
        near.join(", ")
    ))
}

/// The error about a model that is not understood, with the whole copy beside it that may be shown in its place.
pub fn or_copy(error: Error, state: &Normalised) -> Error {
    match (error, &state.copy) {
        (Error::Mapping(reason), Some(copy)) => {
            Error::Mapping(format!("{reason}; or show its copy with --entry {copy}"))
        }
        (error, _) => error,
    }
}

/// Notes on tensors that are left out because they are none of the model's.
pub fn left_out(state: &Normalised, keeps_extra: bool) -> Vec<Note> {
    let (heads, beside): (Vec<_>, Vec<_>) =
        state.beside.iter().partition(|tensor| is_extra(tensor));
    let (counters, beside): (Vec<_>, Vec<_>) =
        beside.into_iter().partition(|tensor| is_counter(tensor));
    let heads = if keeps_extra { Vec::new() } else { heads };
    let note = |tensors: Vec<&SourceTensor>, text: &dyn Fn(String) -> Note| {
        (!tensors.is_empty()).then(|| text(grouped(tensors.into_iter())))
    };
    let all = [
        note(beside, &|names| {
            Note::warning(format!("left out, as it stands beside the model: {names}"))
        }),
        note(heads, &|names| {
            Note::warning(format!(
                "left out, as the wrapper's own head and not the model's: {names}; --keep-extra shows it"
            ))
        }),
        note(counters, &|names| {
            Note::remark(format!("left out, as the training's own state: {names}"))
        }),
        note(state.buffers.iter().collect(), &|names| {
            Note::remark(format!(
                "left out, as state of modules that is never a weight: {names}"
            ))
        }),
    ];
    all.into_iter().flatten().collect()
}

/// The heads that a wrapper added to the model, as `--keep-extra` shows them.
pub fn extra(state: &Normalised) -> Result<Vec<MappedTensor>> {
    let heads = state.beside.iter().filter(|tensor| is_extra(tensor));
    let own = |tensor: &SourceTensor| tensor.clone().renamed(&*unwrapped(&tensor.name));
    Ok(mapping::pass_through(heads.map(own).collect())?.tensors)
}

fn is_extra(tensor: &SourceTensor) -> bool {
    is_added_head(&unwrapped(&tensor.name))
}

/// The names of a few tensors; of many the entries that hold them.
fn grouped<'t>(tensors: impl Iterator<Item = &'t SourceTensor>) -> String {
    let names: Vec<&str> = tensors.map(|tensor| &*tensor.name).collect();
    if names.len() <= SHOWN {
        return names.join(", ");
    }
    let roots = any_shared_roots(&names);
    let root = roots.last().map_or(0, String::len);
    let mut groups: BTreeMap<&str, usize> = BTreeMap::new();
    for name in &names {
        let end = name[root..].find('.').map_or(name.len(), |dot| root + dot);
        *groups.entry(&name[..end]).or_default() += 1;
    }
    let group = |(key, count): (&&str, &usize)| match names.contains(key) {
        true => (*key).to_owned(),
        false => format!("{key}.* ({count} tensors)"),
    };
    let groups: Vec<String> = groups.iter().map(group).collect();
    groups.join(", ")
}

/// The system with other names than Hugging Face's that knows all of these, in a family whose tensors are not listed.
pub fn other_system<'t>(
    tables: &'t Tables,
    family: &'t Family,
    tensors: &[SourceTensor],
) -> Option<&'t System> {
    let bare = tensors.iter().map(|tensor| Cow::Borrowed(&*tensor.name));
    let bare: Vec<Cow<'_, str>> = bare.collect();
    let bare = one_of_each_form(&bare);
    let knows_all = |system: &&System| coverage(system, family, &bare) == bare.len();
    let mut others = tables.systems_of(family).filter(|system| !system.identity);
    others.find(knows_all)
}

/// Refuses names that a system gives to other families: no table says what this family makes of them.
pub fn refuse_foreign(tables: &Tables, model_type: &str, tensors: &[SourceTensor]) -> Result<()> {
    let family = tables.unknown_family(model_type);
    if family.is_some_and(|family| other_system(tables, family, tensors).is_some()) {
        return Ok(());
    }
    let names = tensors.iter().map(|tensor| &*tensor.name);
    let roots = shared_roots(&names.collect::<Vec<_>>());
    let root = roots.last().map_or(0, String::len);
    let bare = tensors
        .iter()
        .map(|tensor| Cow::Borrowed(&tensor.name[root..]));
    let bare: Vec<Cow<'_, str>> = bare.collect();
    let bare = one_of_each_form(&bare);
    let others = tables.systems().filter(|system| !system.identity);
    let mut pairs = others.flat_map(|system| {
        let families = system.families.iter();
        families.filter_map(move |family| Some((system, tables.family(family)?)))
    });
    let found = pairs.find(|(system, family)| renamed_by(system, family, &bare) * 2 > bare.len());
    let known = found.map(|(system, _)| &*system.name);
    let signed = |name: &Cow<'_, str>| {
        let form = form_of(name).0;
        let mut signatures = SIGNATURES.iter();
        signatures
            .find(|(_, end)| form.ends_with(end))
            .map(|(system, _)| *system)
    };
    match known.or_else(|| bare.iter().find_map(signed)) {
        None => Ok(()),
        Some(system) => Err(Error::Mapping(format!(
            "names like {} are {system}'s, and no table says what family {model_type} makes of them: add one with --mapping FILE",
            tensors.first().map_or("", |tensor| &tensor.origin)
        ))),
    }
}

/// The names of the first few tensors, and how many more there are.
pub fn listed<'t>(tensors: impl Iterator<Item = &'t SourceTensor>) -> String {
    let names: Vec<&str> = tensors.map(|tensor| &*tensor.name).collect();
    let shown = names.get(..SHOWN).unwrap_or(&names);
    match names.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// A name in the order in which `layers.2` comes before `layers.10`.
#[derive(PartialEq, Eq)]
pub struct Natural(pub Arc<str>);

impl Ord for Natural {
    fn cmp(&self, other: &Self) -> Ordering {
        natural(&self.0, &other.0)
    }
}

impl PartialOrd for Natural {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

fn natural(a: &str, b: &str) -> Ordering {
    let same = shared_bytes(a.as_bytes(), b.as_bytes());
    let dot = a.as_bytes()[..same].iter().rposition(|byte| *byte == b'.');
    let start = dot.map_or(0, |dot| dot + 1);
    let (one, other) = (component(&a[start..]), component(&b[start..]));
    let order = match (one.parse::<u64>().ok(), other.parse::<u64>().ok()) {
        (Some(one), Some(other)) => one.cmp(&other),
        (one, other) => other.is_some().cmp(&one.is_some()),
    };
    order.then_with(|| one.cmp(other)).then_with(|| a.cmp(b))
}

/// How many bytes both start with, counted by words as long as they last.
fn shared_bytes(a: &[u8], b: &[u8]) -> usize {
    let words = a.as_chunks::<8>().0.iter().zip(b.as_chunks::<8>().0);
    let start = 8 * words.take_while(|(a, b)| a == b).count();
    let rest = a[start..].iter().zip(&b[start..]);
    start + rest.take_while(|(a, b)| a == b).count()
}

fn component(name: &str) -> &str {
    let end = name.bytes().position(|byte| byte == b'.');
    &name[..end.unwrap_or(name.len())]
}

/// The names of a listed family that are nearest to one that it does not have.
pub fn nearest_of(family: &Family, name: &str) -> Vec<String> {
    nearest(name, family.tensors.iter().map(|tensor| &*tensor.name.form))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_count_and_come_before_words() {
        let ordered = [
            "",
            "a",
            "a.02.x",
            "a.2.x",
            "a.10",
            "a.10.b",
            "a.b",
            "a.b-c",
            "a.\u{e9}",
            "a.\u{ea}.b",
            "lm_head.weight",
        ];
        for (i, a) in ordered.iter().enumerate() {
            for (j, b) in ordered.iter().enumerate() {
                assert_eq!(natural(a, b), i.cmp(&j), "{a} {b}");
            }
        }
    }
}
