//! Values of a config that the tensors themselves tell: the sizes that a family's shapes name, and the number of layers.

use std::collections::BTreeMap;

use super::config::Config;
use super::expression::Expression;
use super::family::Family;
use super::pattern::{Pattern, form_of};
use super::table::System;
use crate::error::{Error, Result};
use crate::tensor::SourceTensor;

/// Keys of config.json and their known values.
type Values = BTreeMap<String, u64>;

/// Values of config.json's keys that shapes tell by themselves, or as one of two factors of which config.json has the other.
///
/// # Errors
/// When two tensors disagree, or a size is no multiple of what config.json says.
pub fn infer(
    system: &System,
    family: &Family,
    config: &Config,
    sources: &[SourceTensor],
) -> Result<Values> {
    let mut values = Values::new();
    let mut products = Vec::new();
    for source in sources {
        let (form, numbers) = form_of(&source.name);
        let Some((place, pattern)) = target(system, family, &form) else {
            continue;
        };
        let bindings = pattern.bind(&numbers);
        if let Some(layer) = bindings.and_then(|bindings| bindings.get("layer").copied()) {
            let layers = values.entry("num_hidden_layers".to_owned()).or_default();
            *layers = (*layers).max(layer.saturating_add(1));
        }
        let [part] = &*source.parts else {
            continue;
        };
        let shape = &family.tensors[place].shape;
        for (size, expression) in part.shape().dims().iter().zip(shape) {
            match expression.as_ref().and_then(Expression::as_name) {
                Some(key) => agree(&mut values, key, *size, &source.origin)?,
                None => products.extend(
                    expression
                        .as_ref()
                        .and_then(Expression::as_product)
                        .map(|factors| (place, factors, *size, &*source.origin)),
                ),
            }
        }
    }
    // The queries come first: of them heads are known.
    products.sort_by_key(|(place, ..)| *place);
    for (_, factors, size, name) in products {
        divide(&mut values, config, factors, size, name)?;
    }
    Ok(values)
}

/// The place of the tensor of the family that names of this form have the shape of.
fn target<'a>(system: &'a System, family: &'a Family, form: &str) -> Option<(usize, &'a Pattern)> {
    let mut all = family.tensors.iter();
    let mut of_form = |form: &str| all.position(|tensor| tensor.name.form == form);
    let mut renames = system.renames();
    match renames.find(|(_, pattern)| pattern.form == form) {
        Some((target, pattern)) => Some((of_form(&target)?, pattern)),
        None if system.identity => of_form(form).map(|place| (place, &family.tensors[place].name)),
        None => None,
    }
}

fn agree(values: &mut Values, key: &str, size: u64, name: &str) -> Result<()> {
    let known = *values.entry(key.to_owned()).or_insert(size);
    match known == size {
        true => Ok(()),
        false => Err(Error::Mapping(format!(
            "{key} is {known} by other tensors and {size} by {name}; pass --config-from DIR"
        ))),
    }
}

/// Of two factors, tells the one that is unknown.
fn divide(
    values: &mut Values,
    config: &Config,
    factors: [&str; 2],
    size: u64,
    name: &str,
) -> Result<()> {
    let known = |key: &str| {
        let said = config.get(key).and_then(|value| value.as_u64());
        said.or_else(|| values.get(key).copied())
    };
    let (unknown, key, factor) = match (factors, factors.map(known)) {
        ([key, unknown], [Some(factor), None]) | ([unknown, key], [None, Some(factor)]) => {
            (unknown, key, factor)
        }
        _ => return Ok(()),
    };
    match size
        .checked_div(factor)
        .filter(|_| size.is_multiple_of(factor))
    {
        Some(quotient) => {
            values.insert(unknown.to_owned(), quotient);
            Ok(())
        }
        None => Err(Error::Mapping(format!(
            "{key} {factor} does not fit {name}, whose {size} rows or columns are no multiple of it; pass the right --heads and --kv-heads, or --config-from DIR"
        ))),
    }
}
