//! Whose names a checkpoint has, where config.json says another family or none.

use std::borrow::Cow;

use crate::checkpoint::{any_shared_roots, one_of_each_form, unwrapped};
use crate::error::Error;
use crate::mapping::{Family, Tables, is_whole};
use crate::tensor::SourceTensor;
use crate::view::names::spelling::Spelling;

/// The error about a family that does not have these names where others do. `said` tells who says that it is this one.
pub fn contradicted(
    tables: &Tables,
    family: &Family,
    tensors: &[SourceTensor],
    said: &str,
) -> Option<Error> {
    let having = that_have(tables, tensors);
    let names: Vec<&str> = having.iter().map(|each| &*each.name).collect();
    let is_own = having.iter().any(|each| each.name == family.name);
    (!names.is_empty() && !is_own).then(|| {
        Error::Mapping(format!(
            "{said}, but the tensors are named as those of {}: give this model's --config-from",
            names.join(" or ")
        ))
    })
}

/// The error about a config.json that says no family, where the names are those of one that tables know.
pub fn unsaid(tables: &Tables, tensors: &[SourceTensor]) -> Option<Error> {
    let having = that_have(tables, tensors);
    let types = having.iter().flat_map(|family| &family.model_types);
    let types: Vec<&str> = types.map(String::as_str).collect();
    (!types.is_empty()).then(|| {
        Error::Mapping(format!(
            "config.json has no model_type, and the tensors are named as those of {}: say which with --family, or give this model's --config-from",
            types.join(" or ")
        ))
    })
}

/// The families that some system gives all of these names, and none of whose tensors is missing.
fn that_have<'t>(tables: &'t Tables, tensors: &[SourceTensor]) -> Vec<&'t Family> {
    // Counters of training stand beside a model; no family is told by single elements.
    let is_single =
        |tensor: &SourceTensor| tensor.parts.iter().all(|part| part.shape().elements() <= 1);
    let weights = tensors.iter().filter(|tensor| !is_single(tensor));
    let bare: Vec<Cow<'_, str>> = weights.map(|tensor| unwrapped(&tensor.name)).collect();
    let samples = one_of_each_form(&bare);
    let all: Vec<&str> = bare.iter().map(|name| &**name).collect();
    let below = |root: &String| {
        samples
            .iter()
            .map(|name| Cow::Borrowed(&name[root.len()..]))
            .collect()
    };
    let mut spelled: Vec<Vec<Cow<'_, str>>> = any_shared_roots(&all).iter().map(below).collect();
    spelled.push(
        samples
            .iter()
            .map(|name| Spelling::InBase.of(name))
            .collect(),
    );
    let has = |family: &&Family| {
        let mut systems = tables.systems_of(family);
        systems.any(|system| spelled.iter().any(|names| is_whole(system, family, names)))
    };
    tables.families().filter(has).collect()
}
