//! Several checkpoints of one model as one: averages and sums of what changed.

use std::collections::HashMap;
use std::path::Path;

use super::compare::{Equality, compare};
use super::options::Options;
use super::output_format::OutputFormat;
use super::shown::Open;
use super::side_files::have_config;
use crate::error::{Error, Result};
use crate::mapping::MappedTensor;
use crate::run;
use crate::tensor::{Dtype, Kernel, Tensor};

/// The tensors with those of further members mixed in, as the options say.
pub fn combine(
    tensors: Vec<MappedTensor>,
    source: &Path,
    options: &Options,
    open: &Open<'_>,
) -> Result<Vec<MappedTensor>> {
    if !options.average.is_empty() {
        let members = options.average.iter();
        let members: Vec<Member> = members
            .map(|path| Member::open(path, source, options, open))
            .collect::<Result<_>>()?;
        let weights = match &*options.weights {
            [] => vec![1.0; members.len() + 1],
            weights => weights.to_vec(),
        };
        let divisor = weights.iter().sum::<f64>() as f32;
        let weights: Box<[f32]> = weights.iter().map(|weight| *weight as f32).collect();
        let kernel = || Kernel::Combine {
            weights: weights.clone(),
            divisor,
        };
        return mix(tensors, &members, &kernel, &promoted);
    }
    if !options.deltas.is_empty() {
        let members = options.deltas.iter();
        let members: Vec<Member> = members
            .map(|(path, _)| Member::open(path, source, options, open))
            .collect::<Result<_>>()?;
        let weights: Box<[f32]> = options
            .deltas
            .iter()
            .map(|(_, weight)| *weight as f32)
            .collect();
        let kernel = || Kernel::Deltas {
            weights: weights.clone(),
        };
        return mix(tensors, &members, &kernel, &|all| {
            all.first().map(Tensor::dtype)
        });
    }
    Ok(tensors)
}

/// A checkpoint whose tensors go into those of another.
struct Member<'a> {
    path: &'a Path,
    tensors: HashMap<String, MappedTensor>,
}

impl<'a> Member<'a> {
    /// Opens a member with the options of the first; where it lacks a config.json, it takes that one's.
    fn open(path: &'a Path, source: &Path, options: &Options, open: &Open<'_>) -> Result<Self> {
        let own = run::open(path, &options.opening_of_other())?;
        let has_config = own.params.is_some() || have_config(&own.side_files);
        let first = options.config_from.clone();
        let config_from = match has_config {
            true => first,
            false => first.or_else(|| Some(source.to_owned())),
        };
        let options = Options {
            config_from,
            system: None,
            layout: OutputFormat::Hf,
            names: None,
            merge: Vec::new(),
            average: Vec::new(),
            weights: Vec::new(),
            deltas: Vec::new(),
            quantizes: false,
            ..options.clone()
        };
        let view = open(path, &options)?;
        let tensors = view.tensors.into_iter();
        Ok(Self {
            path,
            tensors: tensors
                .map(|tensor| (tensor.name.to_string(), tensor))
                .collect(),
        })
    }

    fn refuse<T>(&self, name: &str, found: &str) -> Result<T> {
        let reason = format!("{name}: {found}; a member must be of the same model");
        Err(Error::checkpoint(self.path, reason))
    }

    fn tensor(&self, own: &MappedTensor) -> Result<&MappedTensor> {
        let Some(other) = self.tensors.get(&*own.name) else {
            return self.refuse(&own.name, "is missing");
        };
        let (shape, theirs) = (own.tensor.shape(), other.tensor.shape());
        if shape != theirs {
            return self.refuse(&own.name, &format!("has shape {theirs}, not {shape}"));
        }
        let (dtype, theirs) = (own.tensor.dtype(), other.tensor.dtype());
        match dtype == theirs || dtype.is_cast() && theirs.is_cast() {
            true => Ok(other),
            false => self.refuse(&own.name, &format!("is {theirs}, not {dtype}")),
        }
    }

    /// Refuses a tensor that the first checkpoint has not.
    fn check_names(&self, tensors: &[MappedTensor]) -> Result<()> {
        if self.tensors.len() == tensors.len() {
            return Ok(());
        }
        let own: HashMap<&str, ()> = tensors.iter().map(|tensor| (&*tensor.name, ())).collect();
        let names = self
            .tensors
            .keys()
            .filter(|name| !own.contains_key(name.as_str()));
        match names.min() {
            Some(name) => self.refuse(name, "is no tensor of the first checkpoint"),
            None => Ok(()),
        }
    }
}

fn mix(
    tensors: Vec<MappedTensor>,
    members: &[Member<'_>],
    kernel: &dyn Fn() -> Kernel,
    dtype: &dyn Fn(&[Tensor]) -> Option<Dtype>,
) -> Result<Vec<MappedTensor>> {
    members
        .iter()
        .try_for_each(|member| member.check_names(&tensors))?;
    let mix = |own: MappedTensor| {
        let mut all = vec![own.tensor.clone()];
        let mut sources = own.sources.clone();
        for member in members {
            let other = member.tensor(&own)?;
            sources.extend(other.sources.iter().cloned());
            all.push(other.tensor.clone());
        }
        if !own.tensor.dtype().is_castable() {
            for (member, other) in members.iter().zip(all.iter().skip(1)) {
                if compare(&own.tensor, other)? == Equality::Different {
                    return member.refuse(
                        &own.name,
                        "holds other whole numbers, which have no average",
                    );
                }
            }
            return Ok(own);
        }
        if own.tensor.dtype() == Dtype::F64 {
            let reason = format!(
                "{}: is F64, which is not averaged; pass --dtype f32",
                own.name
            );
            return Err(Error::Mapping(reason));
        }
        let dtype = dtype(&all).unwrap_or(own.tensor.dtype());
        let dims = own.tensor.shape().dims().to_vec();
        Ok(MappedTensor {
            tensor: Tensor::computed(kernel(), dtype, &dims, &all)?,
            sources,
            ..own
        })
    };
    tensors.into_iter().map(mix).collect()
}

/// The type that torch gives a sum of tensors of these types.
fn promoted(all: &[Tensor]) -> Option<Dtype> {
    let join = |a: Dtype, b: Dtype| if a == b { a } else { Dtype::F32 };
    all.iter().map(Tensor::dtype).reduce(join)
}
