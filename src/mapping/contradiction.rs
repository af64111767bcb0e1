//! Where tensors and config.json disagree: key by key, what it says and what they have.

use std::collections::BTreeMap;
use std::sync::Arc;

use foldhash::HashSet;

use super::config::{Config, ConfigScope};
use super::expression::Expression;
use super::family::{Family, FamilyTensor};
use super::pattern::{Bindings, form_of};
use super::promise::Expected;
use crate::error::{Error, Result};

/// A model's promises beside its tensors.
pub struct Comparison<'a> {
    pub family: &'a Family,
    pub config: &'a Config,
    /// Promised tensors that are there, and their shapes.
    pub kept: Vec<(&'a Expected<'a>, &'a [u64])>,
    pub missing: Vec<&'a str>,
    pub unexpected: Vec<Arc<str>>,
}

impl Comparison<'_> {
    /// # Errors
    /// One line with every kind of contradiction: keys of config.json, missing tensors, unexpected ones.
    pub fn verdict(mut self) -> Result<()> {
        let mut keys = self.counts()?;
        let (sizes, odd) = self.sizes();
        for (key, said) in sizes.into_iter().chain(self.conditions()) {
            keys.entry(key).or_insert(said);
        }
        let unexpected: Vec<&str> = self.unexpected.iter().map(|name| &**name).collect();
        let all = [
            listed("config.json contradicts the tensors", &values(&keys), "; "),
            listed(
                "of another shape than config.json and other tensors say",
                &values(&odd),
                "; ",
            ),
            listed("missing", &self.missing, ", "),
            listed(
                "not in the model that config.json describes",
                &unexpected,
                ", ",
            ),
        ];
        let all: Vec<String> = all.into_iter().flatten().collect();
        match all.is_empty() {
            true => Ok(()),
            false => Err(Error::Mapping(all.join("; "))),
        }
    }

    /// The keys that count layers or experts otherwise than the names do, which explains the names beyond.
    fn counts(&mut self) -> Result<BTreeMap<String, String>> {
        let mut counts = BTreeMap::new();
        if self.missing.is_empty() && self.unexpected.is_empty() {
            return Ok(counts);
        }
        for (variable, expression) in &self.family.variables {
            let said = expression.evaluate(&self.scope()).map_err(Error::Mapping)?;
            let said = u64::try_from(said).unwrap_or(0);
            let kept = self.kept.iter().map(|(promise, _)| &*promise.name);
            let names = kept.chain(self.unexpected.iter().map(|name| &**name));
            let indices = names.filter_map(|name| self.index(name, variable));
            let have = indices.max().map_or(0, |last| last.saturating_add(1));
            let is_beyond = |name: &str| {
                have != said
                    && self
                        .index(name, variable)
                        .is_some_and(|index| index >= have.min(said))
            };
            let (beyond, missing): (Vec<&str>, _) = self
                .missing
                .iter()
                .copied()
                .partition(|name| is_beyond(name));
            let (extra, unexpected): (Vec<Arc<str>>, _) = self
                .unexpected
                .iter()
                .cloned()
                .partition(|name| is_beyond(name));
            let example = match (beyond.first(), extra.first()) {
                (Some(name), _) => format!("no {name}"),
                (None, Some(name)) => name.to_string(),
                (None, None) => continue,
            };
            counts.insert(
                expression.to_string(),
                format!("{expression} is {said}, the tensors have {have} ({example})"),
            );
            (self.missing, self.unexpected) = (missing, unexpected);
        }
        Ok(counts)
    }

    /// The conditions that no tensor bears out, each with a name that should be, or should not.
    fn conditions(&mut self) -> BTreeMap<String, String> {
        let kept = self
            .kept
            .iter()
            .filter_map(|(promise, _)| promise.of.condition());
        let held: HashSet<&Expression> = kept.collect();
        let condition = |name: &str| {
            let condition = self.tensor(name)?.0.condition()?;
            (!held.contains(condition)).then_some(condition)
        };
        let mut told = BTreeMap::new();
        let mut tell = |name: &str, what: &str| match condition(name) {
            None => true,
            Some(condition) => {
                let keys = match self.scope().keys(condition) {
                    keys if keys.is_empty() => keys,
                    keys => format!(" ({keys})"),
                };
                told.entry(condition.to_string()).or_insert_with(|| {
                    format!("by {condition}{keys} there should be {what}{name}")
                });
                false
            }
        };
        let (mut missing, mut unexpected) = (self.missing.clone(), self.unexpected.clone());
        missing.retain(|name| tell(name, ""));
        unexpected.retain(|name| tell(name, "no "));
        (self.missing, self.unexpected) = (missing, unexpected);
        told
    }

    /// The sizes that no tensor bears out, by what they are in config.json, and the tensors of another shape than the rest.
    fn sizes(&self) -> (BTreeMap<String, String>, BTreeMap<String, String>) {
        let (fitting, differing): (Vec<_>, Vec<_>) = self
            .kept
            .iter()
            .partition(|(promise, dims)| promise.fits(dims));
        let (mut keys, mut odd) = (BTreeMap::new(), BTreeMap::new());
        if differing.is_empty() {
            return (keys, odd);
        }
        let sizes = fitting
            .iter()
            .chain(&differing)
            .flat_map(|(promise, dims)| promise.sizes(dims));
        let held: HashSet<&Expression> = sizes
            .filter(|(_, said, found)| said == found)
            .map(|(expression, ..)| expression)
            .collect();
        for (promise, dims) in differing {
            let wrong = promise.sizes(dims).filter(|(_, said, found)| said != found);
            let mut is_odd = dims.len() != promise.shape.len();
            for (expression, said, found) in wrong {
                is_odd |= held.contains(expression) || expression.names().is_empty();
                let name = &promise.name;
                let told = || {
                    format!(
                        "{}, {name} has {found}",
                        self.scope().told(expression, said)
                    )
                };
                keys.entry(expression.to_string()).or_insert_with(told);
            }
            if is_odd {
                let told = || promise.contradiction(dims);
                odd.entry(form_of(&promise.name).0).or_insert_with(told);
            }
        }
        keys.retain(|key, _| !held.iter().any(|held| held.to_string() == *key));
        (keys, odd)
    }

    /// The value of a variable in a name.
    fn index(&self, name: &str, variable: &str) -> Option<u64> {
        self.tensor(name)?.1.get(variable).copied()
    }

    /// The tensor of the family that a name is of, and its numbers.
    fn tensor(&self, name: &str) -> Option<(&FamilyTensor, Bindings)> {
        let (form, numbers) = form_of(name);
        let mut tensors = self.family.tensors.iter();
        let tensor = tensors.find(|tensor| tensor.name.form == form)?;
        Some((tensor, tensor.name.bind(&numbers)?))
    }

    fn scope(&self) -> ConfigScope<'_> {
        ConfigScope {
            config: self.config,
            defaults: &self.family.defaults,
            bindings: Bindings::new(),
        }
    }
}

/// The words for each, plain keys first.
fn values(told: &BTreeMap<String, String>) -> Vec<&str> {
    let mut told: Vec<_> = told.iter().collect();
    told.sort_by_key(|(key, _)| key.contains(' '));
    told.into_iter().map(|(_, told)| told.as_str()).collect()
}

/// The first few of `items`, and how many more there are.
fn listed(what: &str, items: &[&str], separator: &str) -> Option<String> {
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
