//! What the tensors themselves tell of a config: the sizes that a family's shapes name, and the number of layers.

use std::collections::BTreeMap;

use super::family::Family;
use super::pattern::form_of;
use super::table::System;
use crate::error::{Error, Result};
use crate::tensor::SourceTensor;

/// Values of config.json's keys that stand alone in the shapes of tensors which the system only renames.
///
/// # Errors
/// When two tensors disagree.
pub fn infer(
    system: &System,
    family: &Family,
    sources: &[SourceTensor],
) -> Result<BTreeMap<String, u64>> {
    let mut values: BTreeMap<String, u64> = BTreeMap::new();
    for source in sources {
        let (form, numbers) = form_of(&source.name);
        let Some((target, pattern)) = system.renames().find(|(_, pattern)| pattern.form == form)
        else {
            continue;
        };
        if let Some(layer) = pattern
            .bind(&numbers)
            .and_then(|bindings| bindings.get("layer").copied())
        {
            let layers = values.entry("num_hidden_layers".to_owned()).or_default();
            *layers = (*layers).max(layer + 1);
        }
        let Some(tensor) = family
            .tensors
            .iter()
            .find(|tensor| tensor.name.form == target)
        else {
            continue;
        };
        let [part] = &*source.parts else {
            continue;
        };
        for (size, expression) in part.shape().dims().iter().zip(&tensor.shape) {
            let Some(key) = expression
                .as_ref()
                .and_then(|expression| expression.as_name())
            else {
                continue;
            };
            let known = *values.entry(key.to_owned()).or_insert(*size);
            if known != *size {
                return Err(Error::Mapping(format!(
                    "{key} is {known} by other tensors and {size} by {}; pass --config-from DIR",
                    source.name
                )));
            }
        }
    }
    Ok(values)
}
