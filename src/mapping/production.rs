//! One rule at work: from the tensors that it names to those that it makes.

use std::collections::BTreeSet;
use std::sync::Arc;

use smallvec::SmallVec;

use super::apply::MappedTensor;
use super::config::{Config, ConfigScope, OTHER};
use super::family::Family;
use super::operation::{Operation, Sized};
use super::pattern::Bindings;
use super::table::Rule;
use crate::error::{Error, INCOMPLETE, Result};
use crate::tensor::{SourceTensor, Tensor};

/// One source's claim to be part of a rule's result.
pub struct Claim<'a> {
    pub source: &'a SourceTensor,
    /// Which entry of the rule's `from`.
    pub entry: usize,
    /// Which slice of a new first axis, where the rule makes one.
    pub slices: Bindings,
}

/// A rule at work on the sources that bind its target's variables alike.
pub struct Production<'a> {
    pub rule: &'a Rule,
    pub config: &'a Config,
    pub family: &'a Family,
    pub bindings: Bindings,
}

impl Production<'_> {
    pub fn run(&self, claims: &[Claim], out: &mut Vec<MappedTensor>) -> Result<()> {
        let sources: SmallVec<[Arc<str>; 1]> = claims
            .iter()
            .map(|claim| claim.source.origin.clone())
            .collect();
        let axes = self.cut_axes();
        let lengths = claims
            .first()
            .map(|claim| self.leading(claim.source, axes.len()))
            .transpose()?;
        let Some(lengths) = lengths.flatten() else {
            let reason = format!(
                "{} has no axis to be cut along {}; {OTHER}",
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
                name: name.into(),
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
                    "its rule has several sources and no concat; mend the table".to_owned(),
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
            ([], _) => Err(Error::Mapping(format!(
                "another tensor that it needs is missing: {INCOMPLETE}"
            ))),
            ([first, second, ..], _) if first.slices == second.slices => {
                let names = (&first.source.origin, &second.source.origin);
                Err(Error::Mapping(format!(
                    "both {} and {} are there; save one of them alone",
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
                "its {} slices are not numbered from 0 on: {INCOMPLETE}",
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
    operations.iter().try_fold(tensor, |tensor, operation| {
        let applied = operation.apply(&tensor, scope);
        applied.map_err(|error| blamed(error, operation, scope))
    })
}

/// The error with what config.json says of the sizes that an operation takes.
fn blamed(error: Error, operation: &Operation, scope: &ConfigScope) -> Error {
    let keys = operation.arguments().iter().map(|size| scope.keys(size));
    let keys: BTreeSet<String> = keys.filter(|keys| !keys.is_empty()).collect();
    match keys.len() {
        0 => error,
        _ => {
            let keys = Vec::from_iter(keys).join(", ");
            Error::Mapping(format!("{error}, where config.json says {keys}"))
        }
    }
}

/// Tensor-parallel parts one after the other along `dim`; without it they must be copies of each other.
pub fn join(parts: &[Tensor], dim: Option<usize>) -> Result<Tensor> {
    match (parts, dim) {
        ([whole], _) => Ok(whole.clone()),
        (_, Some(dim)) => Tensor::concat(parts, dim),
        ([first, rest @ ..], None) if rest.iter().all(|part| part.shape() == first.shape()) => {
            Ok(first.clone())
        }
        _ => Err(Error::Mapping(
            "its tensor-parallel parts differ in shape: two saves are mixed; copy one of them whole"
                .to_owned(),
        )),
    }
}

/// The slice at `index` of the first axes, which go.
pub(super) fn cut(tensor: &Tensor, index: &[u64]) -> Result<Tensor> {
    let mut slice = tensor.clone();
    for (dim, i) in index.iter().enumerate() {
        slice = slice.narrow(dim, *i, 1)?;
    }
    let rest = slice.shape().dims()[index.len()..].to_vec();
    slice.reshape(&rest)
}

/// Most tensors that one is cut into: sixteen times the layers times experts of the largest models.
const MOST_SLICES: u64 = 1 << 20;

pub(super) fn each_index(lengths: &[u64], f: &mut dyn FnMut(&[u64]) -> Result<()>) -> Result<()> {
    let total = lengths.iter().copied().fold(1, u64::saturating_mul);
    if total > MOST_SLICES {
        return Err(Error::Mapping(format!(
            "axes of {lengths:?} are more slices than a model has; {OTHER}"
        )));
    }
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
