//! A system's tensors through its rules.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::config::{Config, ConfigScope};
use super::operation::{Operation, Sized};
use super::pattern::{Bindings, Pattern, form_of};
use super::table::{Drop, Family, Rule, System};
use crate::error::{Error, Result};
use crate::tensor::{SourceTensor, Tensor};

/// A tensor of the directory.
#[derive(Debug, Clone)]
pub struct MappedTensor {
    pub name: String,
    pub tensor: Tensor,
    /// The names of the tensors that it is made of.
    pub sources: Vec<Arc<str>>,
}

/// A weight that a rule leaves out.
#[derive(Debug, Clone)]
pub struct Dropped {
    pub source: SourceTensor,
    pub why: String,
    pub unless_zero: bool,
}

/// Where every tensor of the source went.
#[derive(Debug, Default)]
pub struct Outcome {
    pub tensors: Vec<MappedTensor>,
    pub dropped: Vec<Dropped>,
    /// Weights that no rule knows.
    pub unknown: Vec<SourceTensor>,
}

/// How many of `sources` the system has a rule for.
pub fn coverage(system: &System, family: &Family, sources: &[SourceTensor]) -> usize {
    let index = Index::new(system, family);
    let known = |source: &&SourceTensor| !matches!(index.find(&source.name), Found::Nothing);
    sources.iter().filter(known).count()
}

/// Sends every tensor through the rules of `system`.
///
/// # Errors
/// When an operation does not fit a tensor, when a rule lacks one of its sources, or when two sources claim one name.
pub fn apply(
    system: &System,
    family: &Family,
    config: &Config,
    sources: &[SourceTensor],
) -> Result<Outcome> {
    let index = Index::new(system, family);
    let mut outcome = Outcome::default();
    let mut groups: BTreeMap<(usize, Bindings), Vec<Claim>> = BTreeMap::new();
    for source in sources {
        match index.find(&source.name) {
            Found::Nothing => outcome.unknown.push(source.clone()),
            Found::Itself => outcome.tensors.push(MappedTensor {
                name: source.name.to_string(),
                tensor: join(&source.parts, None)?,
                sources: vec![source.name.clone()],
            }),
            Found::Dropped(drop) => outcome.dropped.push(Dropped {
                source: source.clone(),
                why: drop.why.clone(),
                unless_zero: drop.unless_zero,
            }),
            Found::Rules(rules) => {
                for (number, entry, bindings) in rules {
                    let names: Vec<&str> = system.rules[number].to.names().collect();
                    let (to, slices) = bindings
                        .into_iter()
                        .partition(|(name, _)| names.contains(&&**name));
                    let claim = Claim {
                        source,
                        entry,
                        slices,
                    };
                    groups.entry((number, to)).or_default().push(claim);
                }
            }
        }
    }
    for ((number, bindings), claims) in groups {
        let production = Production {
            rule: &system.rules[number],
            config,
            family,
            bindings,
        };
        production.run(&claims, &mut outcome.tensors)?;
    }
    refuse_collisions(&outcome.tensors)?;
    Ok(outcome)
}

/// Sends every tensor under its own name, in natural order of the names.
pub fn pass_through(mut sources: Vec<SourceTensor>) -> Result<Outcome> {
    sources.sort_by_cached_key(|source| natural(&source.name));
    let mut outcome = Outcome::default();
    for source in sources {
        outcome.tensors.push(MappedTensor {
            name: source.name.to_string(),
            tensor: join(&source.parts, None)?,
            sources: vec![source.name],
        });
    }
    refuse_collisions(&outcome.tensors)?;
    Ok(outcome)
}

/// A key that sorts `layers.2` before `layers.10`.
fn natural(name: &str) -> Vec<(Option<u64>, String)> {
    let component = |text: &str| match text.parse() {
        Ok(number) => (Some(number), String::new()),
        Err(_) => (None, text.to_owned()),
    };
    name.split('.').map(component).collect()
}

/// One source's claim to be part of a rule's result.
struct Claim<'a> {
    source: &'a SourceTensor,
    /// Which entry of the rule's `from`.
    entry: usize,
    /// Which slice of a new first axis, where the rule makes one.
    slices: Bindings,
}

enum Found<'a> {
    Nothing,
    Itself,
    Dropped(&'a Drop),
    /// Number of the rule, entry of its `from`, values of its variables.
    Rules(Vec<(usize, usize, Bindings)>),
}

/// A system's patterns by the form of the names that they match.
struct Index<'a> {
    rules: HashMap<&'a str, Vec<(usize, usize, &'a Pattern)>>,
    drops: HashMap<&'a str, Vec<(&'a Pattern, &'a Drop)>>,
    own: HashMap<&'a str, &'a Pattern>,
    passes: Option<&'a Family>,
}

impl<'a> Index<'a> {
    fn new(system: &'a System, family: &'a Family) -> Self {
        let mut rules: HashMap<_, Vec<_>> = HashMap::new();
        for (number, rule) in system.rules.iter().enumerate() {
            for (entry, names) in rule.from.as_slice().iter().enumerate() {
                for pattern in &names.0 {
                    rules
                        .entry(&*pattern.form)
                        .or_default()
                        .push((number, entry, pattern));
                }
            }
        }
        let mut drops: HashMap<_, Vec<_>> = HashMap::new();
        for drop in system.drop.iter().chain(&family.drop) {
            for pattern in &drop.name.0 {
                drops
                    .entry(&*pattern.form)
                    .or_default()
                    .push((pattern, drop));
            }
        }
        let own = family.tensors.iter().filter(|_| system.identity);
        Self {
            rules,
            drops,
            own: own
                .map(|tensor| (&*tensor.name.form, &tensor.name))
                .collect(),
            passes: system.identity.then_some(family),
        }
    }

    fn find(&self, name: &str) -> Found<'a> {
        let (form, numbers) = form_of(name);
        let rules = self.rules.get(&*form).into_iter().flatten();
        let claims: Vec<_> = rules
            .filter_map(|(rule, entry, pattern)| Some((*rule, *entry, pattern.bind(&numbers)?)))
            .collect();
        if !claims.is_empty() {
            return Found::Rules(claims);
        }
        let mut drops = self.drops.get(&*form).into_iter().flatten();
        if let Some((_, drop)) = drops.find(|(pattern, _)| pattern.bind(&numbers).is_some()) {
            return Found::Dropped(drop);
        }
        let passes = self.passes.is_some_and(|family| family.passes(name));
        match self
            .own
            .get(&*form)
            .and_then(|pattern| pattern.bind(&numbers))
        {
            None if !passes => Found::Nothing,
            _ => Found::Itself,
        }
    }
}

/// A rule at work on the sources that bind its target's variables alike.
struct Production<'a> {
    rule: &'a Rule,
    config: &'a Config,
    family: &'a Family,
    bindings: Bindings,
}

impl Production<'_> {
    fn run(&self, claims: &[Claim], out: &mut Vec<MappedTensor>) -> Result<()> {
        let sources: Vec<Arc<str>> = claims
            .iter()
            .map(|claim| claim.source.name.clone())
            .collect();
        let axes = self.cut_axes();
        let lengths = claims
            .first()
            .map(|claim| self.leading(claim.source, axes.len()))
            .transpose()?;
        let Some(lengths) = lengths.flatten() else {
            let reason = format!(
                "{} has no axis to be cut along {}",
                sources[0],
                axes.join(", ")
            );
            return Err(Error::Mapping(reason));
        };
        each_index(&lengths, &mut |index| {
            let mut bindings = self.bindings.clone();
            bindings.extend(
                axes.iter()
                    .map(|axis| (*axis).to_owned())
                    .zip(index.iter().copied()),
            );
            let scope = self.scope(bindings);
            let name = self.rule.to.fill(&scope).map_err(Error::Mapping)?;
            let tensor = self
                .combine(claims, index, &scope)
                .map_err(|error| Error::Mapping(format!("{name} from {}: {error}", sources[0])))?;
            out.push(MappedTensor {
                name,
                tensor,
                sources: sources.clone(),
            });
            Ok(())
        })
    }

    /// The variables of the target that no source binds: axes of the source, in order.
    fn cut_axes(&self) -> Vec<&str> {
        let free = |name: &&str| {
            self.family.variables.contains_key(*name) && !self.bindings.contains_key(*name)
        };
        self.rule.to.names().filter(free).collect()
    }

    /// Sizes of the first `count` axes of a source.
    fn leading(&self, source: &SourceTensor, count: usize) -> Result<Option<Vec<u64>>> {
        let Some(part) = source.parts.first() else {
            return Ok(None);
        };
        let scope = self.scope(self.bindings.clone());
        let part = match count {
            0 => part.clone(),
            _ => steps(&self.rule.pre, part.clone(), &scope)?,
        };
        Ok(part.shape().dims().get(..count).map(<[u64]>::to_vec))
    }

    fn scope(&self, bindings: Bindings) -> ConfigScope<'_> {
        ConfigScope {
            config: self.config,
            defaults: &self.family.defaults,
            bindings,
        }
    }

    fn combine(&self, claims: &[Claim], index: &[u64], scope: &ConfigScope) -> Result<Tensor> {
        let entries = (0..self.rule.from.as_slice().len())
            .map(|entry| self.entry(claims, entry, index, scope))
            .collect::<Result<Vec<_>>>()?;
        let whole = match (&*entries, self.rule.concat) {
            ([tensor], _) => tensor.clone(),
            (_, Some(dim)) => Tensor::concat(&entries, dim)?,
            (_, None) => {
                return Err(Error::Mapping(
                    "its rule has several sources and no concat".to_owned(),
                ));
            }
        };
        steps(&self.rule.then, whole, scope)
    }

    /// One entry of `from`: a single source, or the slices of a new first axis.
    fn entry(
        &self,
        claims: &[Claim],
        entry: usize,
        index: &[u64],
        scope: &ConfigScope,
    ) -> Result<Tensor> {
        let mut slices: Vec<_> = claims.iter().filter(|claim| claim.entry == entry).collect();
        slices.sort_by(|a, b| a.slices.cmp(&b.slices));
        let tensors = slices
            .iter()
            .map(|claim| self.source(claim.source, index, scope))
            .collect::<Result<Vec<_>>>()?;
        match (&*slices, &*tensors) {
            ([claim], [tensor]) if claim.slices.is_empty() => Ok(tensor.clone()),
            ([], _) => Err(Error::Mapping(
                "another tensor that it needs is missing".to_owned(),
            )),
            ([first, second, ..], _) if first.slices == second.slices => {
                let names = (&first.source.name, &second.source.name);
                Err(Error::Mapping(format!(
                    "both {} and {} are there",
                    names.0, names.1
                )))
            }
            _ if slices
                .iter()
                .zip(0..)
                .all(|(claim, i)| claim.slices.values().eq([&i])) =>
            {
                Tensor::stack(&tensors)
            }
            _ => Err(Error::Mapping(format!(
                "its {} slices are not numbered from 0 on",
                slices.len()
            ))),
        }
    }

    fn source(&self, source: &SourceTensor, index: &[u64], scope: &ConfigScope) -> Result<Tensor> {
        let parts = source
            .parts
            .iter()
            .map(|part| {
                let part = cut(&steps(&self.rule.pre, part.clone(), scope)?, index)?;
                steps(&self.rule.ops, part, scope)
            })
            .collect::<Result<Vec<_>>>()?;
        let dim = match (&self.rule.join, parts.first()) {
            (Some(join), Some(tensor)) => {
                let dim = join
                    .evaluate(&Sized { tensor, scope })
                    .map_err(Error::Mapping)?;
                Some(dim as usize)
            }
            _ => None,
        };
        join(&parts, dim)
    }
}

fn steps(operations: &[Operation], tensor: Tensor, scope: &ConfigScope) -> Result<Tensor> {
    operations
        .iter()
        .try_fold(tensor, |tensor, operation| operation.apply(&tensor, scope))
}

/// Tensor-parallel parts one after the other along `dim`; without it they must be copies of each other.
fn join(parts: &[Tensor], dim: Option<usize>) -> Result<Tensor> {
    match (parts, dim) {
        ([whole], _) => Ok(whole.clone()),
        (_, Some(dim)) => Tensor::concat(parts, dim),
        ([first, rest @ ..], None) if rest.iter().all(|part| part.shape() == first.shape()) => {
            Ok(first.clone())
        }
        _ => Err(Error::Mapping(
            "its tensor-parallel parts differ in shape".to_owned(),
        )),
    }
}

/// The slice at `index` of the first axes, which go.
fn cut(tensor: &Tensor, index: &[u64]) -> Result<Tensor> {
    let mut slice = tensor.clone();
    for (dim, i) in index.iter().enumerate() {
        slice = slice.narrow(dim, *i, 1)?;
    }
    let rest = slice.shape().dims()[index.len()..].to_vec();
    slice.reshape(&rest)
}

fn each_index(lengths: &[u64], f: &mut dyn FnMut(&[u64]) -> Result<()>) -> Result<()> {
    let total: u64 = lengths.iter().product();
    for flat in 0..total {
        let mut rest = flat;
        let mut index = vec![0; lengths.len()];
        for (i, length) in index.iter_mut().zip(lengths).rev() {
            (*i, rest) = (rest % length, rest / length);
        }
        f(&index)?;
    }
    Ok(())
}

fn refuse_collisions(tensors: &[MappedTensor]) -> Result<()> {
    let mut seen: HashMap<&str, &MappedTensor> = HashMap::with_capacity(tensors.len());
    for tensor in tensors {
        if let Some(other) = seen.insert(&tensor.name, tensor) {
            return Err(Error::Mapping(format!(
                "both {} and {} would become {}",
                other.sources[0], tensor.sources[0], tensor.name
            )));
        }
    }
    Ok(())
}
