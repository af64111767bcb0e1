//! What config.json promises: the names and shapes of a family's tensors, and whether the checkpoint keeps the promise.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};

use super::apply::MappedTensor;
use super::config::{Config, ConfigScope};
use super::expression::{Expression, Scope};
use super::family::{Family, FamilyTensor, Presence};
use super::pattern::Bindings;
use crate::error::{Error, Result};

/// Most layers, and most experts of one.
const COUNT_LIMIT: u64 = 2048;
/// Most tensors of a model.
const TENSOR_LIMIT: usize = 1 << 20;

/// A tensor that the family has under a config.
#[derive(Debug, Clone)]
pub struct Expected {
    pub name: String,
    /// `None` for a size that config.json does not tell.
    pub shape: Vec<Option<u64>>,
    /// Whether a checkpoint without it is wrong.
    pub required: bool,
    /// The expressions behind the shape, such as `vocab_size, hidden_size`.
    meaning: String,
}

impl Expected {
    fn fits(&self, dims: &[u64]) -> bool {
        dims.len() == self.shape.len()
            && dims
                .iter()
                .zip(&self.shape)
                .all(|(size, want)| want.is_none_or(|want| want == *size))
    }

    /// # Errors
    /// When a tensor of the shape `dims` is not this one.
    pub fn check_shape(&self, dims: &[u64]) -> Result<()> {
        match self.fits(dims) {
            true => Ok(()),
            false => Err(Error::Mapping(format!(
                "config.json contradicts the tensors: {}",
                self.contradiction(dims)
            ))),
        }
    }

    fn contradiction(&self, dims: &[u64]) -> String {
        format!(
            "{} is {dims:?}, config.json says {} ({})",
            self.name,
            self.sizes(),
            self.meaning
        )
    }

    fn sizes(&self) -> String {
        let size = |size: &Option<u64>| size.map_or("_".to_owned(), |size| size.to_string());
        let sizes: Vec<String> = self.shape.iter().map(size).collect();
        format!("[{}]", sizes.join(", "))
    }
}

/// All tensors of the family, in the order in which `save_pretrained` writes them.
///
/// # Errors
/// When config.json lacks a number that a shape or a condition needs.
///
/// `found` is how many tensors there are: a config that promises far more is not listed to its end.
pub fn expected(family: &Family, config: &Config, found: usize) -> Result<Vec<Expected>> {
    let limit = found.saturating_mul(2).saturating_add(SLACK);
    let steps = Cell::new(0);
    let listing = Listing {
        family,
        config,
        limit,
        steps,
    };
    let mut all = Vec::new();
    for group in family
        .tensors
        .chunk_by(|a, b| outer_variable(a) == outer_variable(b))
    {
        match outer_variable(&group[0]) {
            None => listing.list(group, &Bindings::new(), &mut all)?,
            Some(variable) => {
                for i in 0..listing.count(variable)? {
                    listing.list(group, &Bindings::from([(variable.to_owned(), i)]), &mut all)?;
                }
            }
        }
    }
    Ok(all)
}

/// The variable that a run of tensors shares: the layer, whose tensors stand together.
fn outer_variable(tensor: &FamilyTensor) -> Option<&str> {
    tensor.name.variables().next()
}

struct Listing<'a> {
    family: &'a Family,
    config: &'a Config,
    limit: usize,
    /// Names looked at so far, also those that a condition excludes.
    steps: Cell<usize>,
}

/// Promised tensors beyond twice those found, up to which the missing ones are still named.
const SLACK: usize = 100_000;

impl Listing<'_> {
    fn list(
        &self,
        group: &[FamilyTensor],
        outer: &Bindings,
        all: &mut Vec<Expected>,
    ) -> Result<()> {
        for tensor in group {
            match tensor.name.variables().nth(1) {
                None => self.add(tensor, outer.clone(), all)?,
                Some(inner) => {
                    for i in 0..self.count(inner)? {
                        let mut bindings = outer.clone();
                        bindings.insert(inner.to_owned(), i);
                        self.add(tensor, bindings, all)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn add(
        &self,
        tensor: &FamilyTensor,
        bindings: Bindings,
        all: &mut Vec<Expected>,
    ) -> Result<()> {
        if all.len() >= TENSOR_LIMIT {
            let reason = format!("config.json describes more than {TENSOR_LIMIT} tensors");
            return Err(Error::Mapping(reason));
        }
        self.steps.set(self.steps.get() + 1);
        if self.steps.get() > self.limit {
            let counts: Vec<String> = self
                .family
                .variables
                .values()
                .map(ToString::to_string)
                .collect();
            return Err(Error::Mapping(format!(
                "config.json promises more than {} tensors, far more than there are: look at {}",
                self.limit,
                counts.join(", ")
            )));
        }
        let scope = self.scope(bindings);
        if let Presence::When(condition) = &tensor.presence
            && !condition.holds(&scope).map_err(Error::Mapping)?
        {
            return Ok(());
        }
        let size = |size: &Option<Expression>| match size {
            None => Ok(None),
            Some(size) => {
                let value = size.evaluate(&scope).map_err(Error::Mapping)?;
                u64::try_from(value)
                    .map(Some)
                    .map_err(|_| Error::Mapping(format!("config.json: {size} is {value}")))
            }
        };
        let optional = match (&tensor.presence, &self.family.optional) {
            (Presence::Optional, _) => true,
            (_, Some(condition)) if self.applies(condition, tensor) => {
                condition.holds(&scope).map_err(Error::Mapping)?
            }
            _ => false,
        };
        let text = |size: &Option<Expression>| {
            size.as_ref()
                .map_or("_".to_owned(), |size| size.to_string())
        };
        let meaning: Vec<String> = tensor.shape.iter().map(text).collect();
        all.push(Expected {
            name: tensor.template.fill(&scope).map_err(Error::Mapping)?,
            shape: tensor.shape.iter().map(size).collect::<Result<_>>()?,
            required: !optional,
            meaning: meaning.join(","),
        });
        Ok(())
    }

    /// Whether a condition speaks of no other variable than the tensor's name does.
    fn applies(&self, condition: &Expression, tensor: &FamilyTensor) -> bool {
        let variables = |name: &&str| self.family.variables.contains_key(*name);
        condition
            .names()
            .into_iter()
            .filter(variables)
            .all(|name| tensor.name.variables().any(|own| own == name))
    }

    fn count(&self, variable: &str) -> Result<u64> {
        let expression = self.family.variables.get(variable).ok_or_else(|| {
            Error::Mapping(format!(
                "family {}: nothing says how far {variable} counts",
                self.family.name
            ))
        })?;
        let count = expression
            .evaluate(&self.scope(Bindings::new()))
            .map_err(Error::Mapping)?;
        match u64::try_from(count) {
            Ok(count) if count <= COUNT_LIMIT => Ok(count),
            _ => Err(Error::Mapping(format!(
                "config.json: {expression} is {count}, not between 0 and {COUNT_LIMIT}"
            ))),
        }
    }

    fn scope(&self, bindings: Bindings) -> ConfigScope<'_> {
        ConfigScope {
            config: self.config,
            defaults: &self.family.defaults,
            bindings,
        }
    }
}

/// Whether the family ties the output head to the embedding under this config.
pub fn is_tied(family: &Family, config: &Config) -> Result<bool> {
    let scope = ConfigScope {
        config,
        defaults: &family.defaults,
        bindings: Bindings::new(),
    };
    let tied = scope
        .number("tie_word_embeddings")
        .map_err(Error::Mapping)?;
    Ok(tied != 0)
}

/// Puts the tensors in the family's order.
///
/// # Errors
/// One line with every kind of contradiction: missing tensors, unexpected ones, other shapes than config.json says.
pub fn check(
    family: &Family,
    expected: &[Expected],
    tensors: Vec<MappedTensor>,
) -> Result<Vec<MappedTensor>> {
    let (mut ordered, listed): (Vec<_>, Vec<_>) = tensors
        .into_iter()
        .partition(|tensor| family.passes(&tensor.name));
    let mut found: HashMap<String, MappedTensor> = listed
        .into_iter()
        .map(|tensor| (tensor.name.clone(), tensor))
        .collect();
    let mut complaints = Complaints::default();
    for promise in expected {
        match found.remove(&promise.name) {
            None if promise.required => complaints.missing.push(promise.name.clone()),
            None => {}
            Some(tensor) => {
                let shape = tensor.tensor.shape().dims();
                if !promise.fits(shape) {
                    let (form, _) = super::pattern::form_of(&promise.name);
                    let told = || promise.contradiction(shape);
                    complaints.shapes.entry(form).or_insert_with(told);
                }
                ordered.push(tensor);
            }
        }
    }
    complaints.unexpected = found.into_keys().collect();
    complaints.unexpected.sort();
    complaints.verdict().map(|()| ordered)
}

#[derive(Default)]
struct Complaints {
    missing: Vec<String>,
    unexpected: Vec<String>,
    /// One for each form of name.
    shapes: BTreeMap<String, String>,
}

impl Complaints {
    fn verdict(self) -> Result<()> {
        let shapes: Vec<String> = self.shapes.into_values().collect();
        let all = [
            listed("missing", &self.missing, ", "),
            listed(
                "not in the model that config.json describes",
                &self.unexpected,
                ", ",
            ),
            listed("config.json contradicts the tensors", &shapes, "; "),
        ];
        let all: Vec<String> = all.into_iter().flatten().collect();
        if all.is_empty() {
            Ok(())
        } else {
            Err(Error::Mapping(all.join("; ")))
        }
    }
}

/// The first few of `items`, and how many more there are.
fn listed(what: &str, items: &[String], separator: &str) -> Option<String> {
    const SHOWN: usize = 8;
    if items.is_empty() {
        return None;
    }
    let shown = items[..items.len().min(SHOWN)].join(separator);
    let more = match items.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Some(format!("{what}: {shown}{more}"))
}
