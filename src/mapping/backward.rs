//! A directory's tensors through a system's rules run backwards: under the system's names, as the system lays them out.
//!
//! Of several rules that make one name the first in the table writes it; the others only read. A variable that only the
//! target of a rule has numbers slices that are stacked, one that only its source has cuts the first axis. The rules of one
//! source that each take a part of it put it together again.

use std::sync::Arc;

use foldhash::{HashMap, HashMapExt};

use super::apply::{MappedTensor, holds};
use super::assemble::{Contribution, assemble};
use super::config::{Config, ConfigScope};
use super::family::Family;
use super::operation::{Operation, size};
use super::pattern::{Bindings, Names, Pattern, Spelling, form_of};
use super::production::{cut, each_index};
use super::table::{Drop, Rule, System};
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// A tensor of zeros that the system's readers want and the directory does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZeroRows {
    pub name: String,
    pub rows: u64,
}

/// A directory's tensors under a system's names.
#[derive(Debug, Default)]
pub struct Written {
    pub tensors: Vec<MappedTensor>,
    pub zeros: Vec<ZeroRows>,
    /// Tensors that the system has no place for, and why that is right.
    pub left: Vec<(Arc<str>, String)>,
}

/// Writes `tensors` under the names of `system`.
///
/// # Errors
/// When a tensor has no rule, or a rule is one-way or does not fit it.
pub fn backward(
    system: &System,
    family: &Family,
    config: &Config,
    spelling: Spelling,
    tensors: &[MappedTensor],
) -> Result<Written> {
    if system.identity {
        return Ok(Written {
            tensors: tensors.to_vec(),
            ..Written::default()
        });
    }
    let writers = Writers::new(system, family, config, spelling)?;
    let mut written = Written::default();
    let mut order: Vec<String> = Vec::new();
    let mut parts: HashMap<String, Vec<Contribution>> = HashMap::new();
    for tensor in tensors {
        let Some((writer, bindings)) = writers.find(&tensor.name)? else {
            written.left.push(writers.leave(tensor)?);
            continue;
        };
        let contributions = writers.contributions(writer, &bindings, tensor);
        for (name, part) in
            contributions.map_err(|error| writers.blamed(writer, &tensor.name, error))?
        {
            let of_name = parts.entry(name.clone()).or_default();
            if of_name.is_empty() {
                order.push(name);
            }
            of_name.push(part);
        }
    }
    for name in order {
        let contributions = parts.remove(&name).unwrap_or_default();
        let rule = contributions.first().map(|part| part.rule.to_string());
        let tensor = assemble(&name, contributions).map_err(|error| {
            let rule = rule.unwrap_or_default();
            Error::Mapping(format!(
                "{name}: {error} (table {}, rule {rule})",
                system.name
            ))
        })?;
        written.tensors.push(tensor);
    }
    written.zeros = zeros(system, spelling, &written.tensors);
    Ok(written)
}

/// The rules of a system that write.
struct Writers<'a> {
    system: &'a System,
    family: &'a Family,
    config: &'a Config,
    /// By the form of what they make, those with arithmetic in the name first: they hold for fewer names.
    by_form: HashMap<String, Vec<Writer<'a>>>,
}

struct Writer<'a> {
    rule: &'a Rule,
    /// The spelling of each source that is written.
    froms: Vec<&'a Pattern>,
}

impl<'a> Writers<'a> {
    fn new(
        system: &'a System,
        family: &'a Family,
        config: &'a Config,
        spelling: Spelling,
    ) -> Result<Self> {
        let mut by_form: HashMap<String, Vec<Writer>> = HashMap::new();
        for rule in &system.rules {
            if !holds(rule, family, config)? {
                continue;
            }
            let froms = rule.from.as_slice().iter();
            let froms: Vec<&Pattern> = froms.filter_map(|names| names.spelled(spelling)).collect();
            let writers = by_form.entry(form_of(&rule.to.form()).0).or_default();
            let has_arithmetic = rule.to.has_arithmetic();
            let mut alike = writers
                .iter()
                .filter(|other| other.rule.to.has_arithmetic() == has_arithmetic);
            if alike.next().is_none_or(|first| first.froms == froms) {
                writers.push(Writer { rule, froms });
            }
        }
        for writers in by_form.values_mut() {
            writers.sort_by_key(|writer| !writer.rule.to.has_arithmetic());
        }
        Ok(Self {
            system,
            family,
            config,
            by_form,
        })
    }

    fn scope(&self, bindings: Bindings) -> ConfigScope<'a> {
        ConfigScope {
            config: self.config,
            defaults: &self.family.defaults,
            bindings,
        }
    }

    /// The rule that makes a name, and the values that its variables have there.
    fn find(&self, name: &str) -> Result<Option<(&Writer<'a>, Bindings)>> {
        let writers = self.by_form.get(&form_of(name).0);
        for writer in writers.into_iter().flatten() {
            let bound = self.bind(writer.rule, name);
            if let Some(bindings) = bound.map_err(|error| self.blamed(writer, name, error))? {
                return Ok(Some((writer, bindings)));
            }
        }
        Ok(None)
    }

    fn bind(&self, rule: &Rule, name: &str) -> Result<Option<Bindings>> {
        let Some(values) = rule.to.values(name) else {
            return Ok(None);
        };
        let scope = self.scope(Bindings::new());
        let mut bindings = Bindings::new();
        for (expression, value) in values {
            let solved = expression.solve(value, &scope).map_err(Error::Mapping)?;
            match solved {
                Some((variable, Some(value))) => bindings.insert(variable.to_owned(), value),
                Some((_, None)) => return Ok(None),
                None => {
                    let reason = format!("{{{expression}}} cannot be solved for a variable");
                    return Err(Error::Mapping(reason));
                }
            };
        }
        Ok(Some(bindings))
    }

    /// Returns the contributions of a tensor of the directory, with the names that it contributes to.
    fn contributions(
        &self,
        writer: &Writer<'a>,
        bindings: &Bindings,
        tensor: &MappedTensor,
    ) -> Result<Vec<(String, Contribution<'a>)>> {
        let rule = writer.rule;
        let scope = self.scope(bindings.clone());
        let mut whole = tensor.tensor.clone();
        for operation in rule.then.iter().rev() {
            whole = operation.invert(&whole, &scope)?;
        }
        let (tile, ops) = match &*rule.ops {
            [first, rest @ ..] if first.is_tile() => (Some(first), rest),
            all => (None, all),
        };
        let mut contributions = Vec::new();
        for (pattern, part) in writer.froms.iter().zip(parted(rule, &whole, &scope)?) {
            let axes: Vec<&str> = pattern.variables().collect();
            let stacked = rule.to.names().filter(|name| !axes.contains(name));
            let index = stacked.filter_map(|name| bindings.get(name).copied());
            let index: Vec<u64> = index.collect();
            let free = |axis: &&&str| !bindings.contains_key(**axis);
            let free: Vec<&str> = axes.iter().filter(free).copied().collect();
            let lengths = part.shape().dims().get(..free.len());
            let lengths = lengths.ok_or_else(|| {
                Error::Mapping(format!(
                    "it has no axis to be cut along {}",
                    free.join(", ")
                ))
            })?;
            each_index(lengths, &mut |slice| {
                let mut tensor_of_slice = cut(&part, slice)?;
                for operation in ops.iter().rev() {
                    tensor_of_slice = operation.invert(&tensor_of_slice, &scope)?;
                }
                let mut all = bindings.clone();
                let numbered = free.iter().map(|axis| (*axis).to_owned());
                all.extend(numbered.zip(slice.iter().copied()));
                let name = pattern.fill(&all).ok_or_else(|| {
                    Error::Mapping(format!("nothing tells all numbers of {pattern}"))
                })?;
                let contribution = Contribution {
                    rule,
                    index: index.clone(),
                    tile,
                    tensor: tensor_of_slice,
                    sources: tensor.sources.clone(),
                    scope: self.scope(bindings.clone()),
                };
                contributions.push((name, contribution));
                Ok(())
            })?;
        }
        Ok(contributions)
    }

    /// A tensor without a rule, and why the table leaves it out.
    fn leave(&self, tensor: &MappedTensor) -> Result<(Arc<str>, String)> {
        let mut leaves = self.system.leave.iter();
        let listed = leaves.find(|leave| leave.name.matches(&tensor.name));
        let passed = || self.family.passes(&tensor.name);
        let passed = self.system.leave_passed.as_ref().filter(|_| passed());
        match listed.map(|leave| &leave.why).or(passed) {
            Some(why) => Ok((tensor.name.clone(), why.clone())),
            None => Err(Error::Mapping(format!(
                "{} has no name in table {} for family {}; write other --names, or add a rule with --mapping FILE",
                tensor.name, self.system.name, self.family.name
            ))),
        }
    }

    fn blamed(&self, writer: &Writer, name: &str, error: Error) -> Error {
        match error {
            Error::Mapping(reason) => Error::Mapping(format!(
                "{name}: {reason} (table {}, rule {} run backwards)",
                self.system.name, writer.rule
            )),
            other => other,
        }
    }
}

/// The tensors that a rule would concatenate.
fn parted(rule: &Rule, whole: &Tensor, scope: &ConfigScope) -> Result<Vec<Tensor>> {
    let (Some(dim), false) = (rule.concat, rule.from.as_slice().len() == 1) else {
        return Ok(vec![whole.clone()]);
    };
    if rule.parts.len() != rule.from.as_slice().len() {
        return Err(Error::Mapping(
            "the rule is one-way: it concatenates and has no parts".to_owned(),
        ));
    }
    let mut start = 0u64;
    let mut parts = Vec::with_capacity(rule.parts.len());
    for part in &rule.parts {
        let length = size(part, scope)?;
        parts.push(whole.narrow(dim, start, length)?);
        start = start.saturating_add(length);
    }
    match whole.shape().dims().get(dim) {
        Some(all) if *all == start => Ok(parts),
        _ => Err(Error::Mapping(format!(
            "its parts have {start} along dimension {dim}, and its shape is {}",
            whole.shape()
        ))),
    }
}

/// The tensors of zeros that stand for what the directory does not have.
fn zeros(system: &System, spelling: Spelling, tensors: &[MappedTensor]) -> Vec<ZeroRows> {
    let wanted =
        |drop: &'_ Drop| Some((drop.rows_of.clone()?, drop.name.spelled(spelling)?.clone()));
    let wanted: Vec<(Names, Pattern)> = system.drop.iter().filter_map(wanted).collect();
    let mut zeros = Vec::new();
    for tensor in tensors {
        let (form, numbers) = form_of(&tensor.name);
        for (rows_of, own) in &wanted {
            let patterns = rows_of.0.iter().filter(|pattern| pattern.form == form);
            let bindings = patterns.filter_map(|pattern| pattern.bind(&numbers)).next();
            let name = bindings.and_then(|bindings| own.fill(&bindings));
            if let (Some(name), Some(rows)) = (name, tensor.tensor.shape().dims().first()) {
                zeros.push(ZeroRows { name, rows: *rows });
            }
        }
    }
    zeros
}

/// The rules of a system that cannot be run backwards, and why.
pub fn one_way(system: &System) -> Vec<(&Rule, String)> {
    let why = |rule: &Rule| {
        let sources = rule.from.as_slice().len();
        if sources > 1 && rule.parts.len() != sources {
            return Some("it concatenates and has no parts".to_owned());
        }
        if rule.then.iter().any(Operation::is_tile) {
            return Some("it cuts off what it cannot give back".to_owned());
        }
        if rule
            .pre
            .iter()
            .chain(rule.ops.iter().skip(1))
            .any(Operation::is_tile)
        {
            return Some("it takes a part after another operation".to_owned());
        }
        let mut all = rule.pre.iter().chain(&rule.ops).chain(&rule.then);
        all.find_map(Operation::one_way)
    };
    let rules = system.rules.iter();
    rules.filter_map(|rule| Some((rule, why(rule)?))).collect()
}
