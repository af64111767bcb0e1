//! Promises of config.json: the names and shapes of a family's tensors.

use std::cell::Cell;

use super::config::{Config, ConfigScope, OTHER};
use super::expression::Expression;
use super::family::{Family, FamilyTensor, Presence};
use super::pattern::Bindings;
use super::promise::Expected;
use crate::error::{Error, Result};

/// Most layers, and most experts of one.
const COUNT_LIMIT: u64 = 2048;

/// Promised tensors beyond twice those found, up to which the missing ones are still named.
const SLACK: usize = 100_000;

/// All tensors of the family, in the order in which `save_pretrained` writes them.
///
/// # Errors
/// When config.json lacks a number that a shape or a condition needs.
///
/// `found` is how many tensors there are: a config that promises far more is not listed to its end.
pub fn expected<'f>(
    family: &'f Family,
    config: &Config,
    found: usize,
) -> Result<Vec<Expected<'f>>> {
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

struct Listing<'f, 'c> {
    family: &'f Family,
    config: &'c Config,
    limit: usize,
    /// Names looked at so far, also those that a condition excludes.
    steps: Cell<usize>,
}

impl<'f> Listing<'f, '_> {
    fn list(
        &self,
        group: &'f [FamilyTensor],
        outer: &Bindings,
        all: &mut Vec<Expected<'f>>,
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
        tensor: &'f FamilyTensor,
        bindings: Bindings,
        all: &mut Vec<Expected<'f>>,
    ) -> Result<()> {
        self.step()?;
        let scope = self.scope(bindings);
        if !is_present(tensor, &scope)? {
            return Ok(());
        }
        let sizes = tensor.shape.iter().map(|size| evaluated(size, &scope));
        let is_extra = self.is_extra(tensor, &scope)?;
        let mark = self.family.mark.as_ref().filter(|_| is_extra);
        let mark = mark.map(|mark| mark.fill(&scope)).transpose();
        all.push(Expected {
            name: tensor.template.fill(&scope).map_err(Error::Mapping)?,
            shape: sizes.collect::<Result<_>>()?,
            required: !is_extra && !matches!(tensor.presence, Presence::Optional),
            mark: mark.map_err(Error::Mapping)?,
            of: tensor,
        });
        Ok(())
    }

    /// # Errors
    /// When config.json promises far more than there can be.
    fn step(&self) -> Result<()> {
        self.steps.set(self.steps.get() + 1);
        if self.steps.get() <= self.limit {
            return Ok(());
        }
        let counts = self.family.variables.values().map(ToString::to_string);
        let counts: Vec<String> = counts.collect();
        Err(Error::Mapping(format!(
            "config.json promises more than {} tensors, far more than there are: look at {}",
            self.limit,
            counts.join(", ")
        )))
    }

    /// Whether the tensor is of a part that a checkpoint may leave out.
    fn is_extra(&self, tensor: &FamilyTensor, scope: &ConfigScope<'_>) -> Result<bool> {
        match &self.family.optional {
            Some(condition) if self.applies(condition, tensor) => {
                condition.holds(scope).map_err(Error::Mapping)
            }
            _ => Ok(false),
        }
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
                "config.json: {expression} is {count}, not between 0 and {COUNT_LIMIT}; {OTHER}"
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

fn is_present(tensor: &FamilyTensor, scope: &ConfigScope<'_>) -> Result<bool> {
    match &tensor.presence {
        Presence::When(condition) => condition.holds(scope).map_err(Error::Mapping),
        _ => Ok(true),
    }
}

fn evaluated(size: &Option<Expression>, scope: &ConfigScope<'_>) -> Result<Option<u64>> {
    let Some(size) = size else {
        return Ok(None);
    };
    let value = size.evaluate(scope).map_err(Error::Mapping)?;
    let refused = |_| Error::Mapping(format!("config.json: {size} is {value}; {OTHER}"));
    u64::try_from(value).map(Some).map_err(refused)
}
