//! The weights that adapters are merged into, by name.

use std::collections::HashMap;
use std::sync::Arc;

use super::OTHER;
use super::settings::Settings;
use crate::error::{Error, Result};
use crate::mapping::{self, Config, Family, MappedTensor, System};
use crate::tensor::{Kernel, LowRank, SourceTensor, Tensor};

/// Modules that hold their weight as [in, out], and the families of them.
const CONV1D: [&str; 4] = ["c_attn", "c_proj", "c_fc", "q_attn"];
const CONV1D_TYPES: [&str; 4] = ["gpt2", "openai-gpt", "imagegpt", "decision_transformer"];

/// The model that the weights are of.
pub struct Base<'a> {
    pub config: &'a Config,
    pub family: Option<&'a Family>,
    /// The rules by which transformers' names in memory become those of files.
    pub system: Option<&'a System>,
    /// The embedding, and the head that is tied to it.
    pub embedding: String,
    pub head: String,
    pub is_tied: bool,
}

pub struct Weights<'a> {
    pub base: Base<'a>,
    pub tensors: Vec<MappedTensor>,
    numbers: HashMap<Arc<str>, usize>,
    /// Whole tensors that adapters before this one and this one brought.
    replaced: HashMap<Arc<str>, usize>,
    adapter: usize,
    /// Whether the head was tied and no longer is.
    pub is_untied: bool,
}

fn foreign<T>(name: &str, found: &str) -> Result<T> {
    Err(Error::Mapping(format!(
        "{name}: {found}; {OTHER}, or --merge is given the wrong base"
    )))
}

impl<'a> Weights<'a> {
    pub fn new(base: Base<'a>, tensors: Vec<MappedTensor>) -> Self {
        let numbers = tensors.iter().enumerate();
        let numbers = numbers.map(|(number, tensor)| (tensor.name.clone(), number));
        Self {
            base,
            numbers: numbers.collect(),
            tensors,
            replaced: HashMap::new(),
            adapter: 0,
            is_untied: false,
        }
    }

    pub fn begin_adapter(&mut self) {
        self.adapter += 1;
    }

    /// The number of a tensor. A tied head is its embedding, and a model without a head may be named without its prefix.
    pub fn find(&self, name: &str) -> Option<usize> {
        let prefixed = format!("model.{name}");
        let own = self.numbers.get(name);
        let own = own.or(self
            .numbers
            .get(&*prefixed)
            .filter(|_| self.base.config.is_base()));
        let tied = self.base.is_tied && !self.is_untied && name == self.base.head;
        own.or_else(|| self.numbers.get(&*self.base.embedding).filter(|_| tied))
            .copied()
    }

    fn tensor(&self, number: usize) -> Result<&MappedTensor> {
        let lacks = || Error::Mapping(format!("there is no weight {number}"));
        self.tensors.get(number).ok_or_else(lacks)
    }

    /// Puts what is computed in the place of a weight.
    pub fn set(&mut self, number: usize, tensor: Tensor) {
        if let Some(own) = self.tensors.get_mut(number) {
            own.tensor = tensor;
        }
    }

    pub fn dims(&self, number: usize) -> Result<Vec<u64>> {
        Ok(self.tensor(number)?.tensor.shape().dims().to_vec())
    }

    /// The weights of the files that a matrix in memory is cut into: their names, and the rows of the matrix that each has.
    pub fn in_files(&self, name: &str, rows: &Tensor) -> Result<Vec<(usize, String, Tensor)>> {
        if let Some(number) = self.find(name) {
            return Ok(vec![(number, name.to_owned(), rows.clone())]);
        }
        let (Some(family), Some(system)) = (self.base.family, self.base.system) else {
            return foreign(name, "the base has no such weight");
        };
        let source = SourceTensor::whole(name, rows.clone());
        let outcome = mapping::apply(system, family, self.base.config, &[source])?;
        let found = outcome.tensors.into_iter().map(|part| {
            let number = self.find(&part.name);
            number.map(|number| (number, part.name.to_string(), part.tensor))
        });
        match found.collect::<Option<Vec<_>>>() {
            Some(found) if !found.is_empty() => Ok(found),
            _ => foreign(name, "the base has no such weight"),
        }
    }

    /// Puts a tensor that was trained whole in the place of the base's.
    pub fn replace(
        &mut self,
        whole: &MappedTensor,
        is_adapted: bool,
        is_saved: bool,
    ) -> Result<()> {
        let name = whole.name.replace(".base_layer.", ".");
        let unties = self.base.is_tied && !self.is_untied && !is_adapted && is_saved;
        let is_end = |weight: &str| name == weight;
        if unties && (is_end(&self.base.head) || is_end(&self.base.embedding)) {
            self.untie()?;
        }
        let parts = self.in_files(&name, &whole.tensor)?;
        for (number, own, tensor) in parts {
            let old = self.tensor(number)?;
            let (dims, dtype) = (old.tensor.shape(), old.tensor.dtype());
            if tensor.shape() != dims {
                return foreign(
                    &own,
                    &format!(
                        "has shape {} in the adapter and {dims} in the base (a vocabulary that was resized is not merged)",
                        tensor.shape()
                    ),
                );
            }
            if self
                .replaced
                .insert(own.as_str().into(), self.adapter)
                .is_some_and(|by| by != self.adapter)
            {
                return Err(Error::Mapping(format!(
                    "{own}: two adapters bring it whole; merge one of them alone"
                )));
            }
            let tensor = match tensor.dtype().is_castable() && dtype.is_cast() {
                true => tensor.cast(dtype)?,
                false if tensor.dtype() == dtype => tensor,
                false => {
                    return foreign(
                        &own,
                        &format!(
                            "is {} in the adapter and {dtype} in the base",
                            tensor.dtype()
                        ),
                    );
                }
            };
            self.set(number, tensor);
        }
        Ok(())
    }

    /// Gives the head a weight of its own.
    fn untie(&mut self) -> Result<()> {
        let Some(number) = self.find(&self.base.embedding) else {
            return foreign(&self.base.embedding, "the base has no embedding");
        };
        let head: Arc<str> = self.base.head.as_str().into();
        let embedding = self.tensor(number)?.clone();
        self.numbers.insert(head.clone(), self.tensors.len());
        self.tensors.push(MappedTensor {
            name: head,
            ..embedding
        });
        self.is_untied = true;
        Ok(())
    }

    pub fn replace_rows(&mut self, module: &str, rows: &Tensor, settings: &Settings) -> Result<()> {
        let name = format!("{module}.weight");
        let Some(number) = self.find(&name) else {
            return foreign(&name, "the base has no such weight");
        };
        let own = self.tensor(number)?.tensor.clone();
        let Some(indices) = settings.tokens_of(module) else {
            return foreign(
                module,
                "adapter_config.json names no trainable_token_indices of it",
            );
        };
        let (height, width) = own.sides();
        let (count, own_width) = rows.sides();
        let is_sound = count == indices.len() as u64
            && own_width == width
            && indices.iter().all(|index| *index < height);
        let mut places: Vec<(u64, u64)> = indices.iter().copied().zip(0..).collect();
        places.sort_unstable();
        if !is_sound
            || places
                .windows(2)
                .any(|pair| matches!(pair, [(a, _), (b, _)] if a == b))
        {
            return foreign(
                &name,
                &format!(
                    "tokens {indices:?} of shape {} do not fit {}",
                    rows.shape(),
                    own.shape()
                ),
            );
        }
        let rows = rows.cast(own.dtype())?;
        let mut parts = Vec::new();
        let mut done = 0;
        for (index, row) in places {
            if index > done {
                parts.push(own.narrow(0, done, index - done)?);
            }
            parts.push(rows.narrow(0, row, 1)?);
            done = index + 1;
        }
        if done < height {
            parts.push(own.narrow(0, done, height - done)?);
        }
        self.set(number, Tensor::concat(&parts, 0)?);
        Ok(())
    }

    pub fn update_linear(
        &mut self,
        module: &str,
        left: &Tensor,
        right: &Tensor,
        magnitude: Option<&Tensor>,
        settings: &Settings,
    ) -> Result<()> {
        let name = format!("{module}.weight");
        let ([out, rank], [own_rank, columns]) = (matrix(&name, left)?, matrix(&name, right)?);
        if rank != own_rank {
            return foreign(&name, &format!("lora_A has rank {own_rank}, lora_B {rank}"));
        }
        settings.check_dora(module, magnitude.is_some())?;
        let scale = settings.scale(module, rank)?;
        let rounds_update = settings.adapts(&name);
        for (number, name, left) in self.in_files(&name, left)? {
            let dims = self.dims(number)?;
            let is_conv1d = self.is_conv1d(module, &dims, [out, columns], settings);
            let (left, right) = match is_conv1d {
                true => (right.transpose()?, left.transpose()?),
                false => (left, right.clone()),
            };
            if is_conv1d && magnitude.is_some() {
                return Err(Error::Mapping(format!(
                    "{name}: DoRA on a Conv1D is not merged; merge it with PEFT"
                )));
            }
            let update = Update {
                left,
                right,
                magnitude: magnitude.cloned(),
                scale,
                rounds_update,
            };
            self.update(number, &name, update)?;
        }
        Ok(())
    }

    /// Whether a module is transformers' Conv1D. Shapes tell, unless both sides are equal.
    fn is_conv1d(&self, module: &str, dims: &[u64], of: [u64; 2], settings: &Settings) -> bool {
        let [out, columns] = of;
        if out != columns {
            return dims == [columns, out];
        }
        let last = module.rsplit('.').next().unwrap_or(module);
        let model_type = self.base.config.model_type().unwrap_or_default();
        match CONV1D_TYPES.contains(&model_type) {
            true => CONV1D.contains(&last),
            false => settings.fan_in_fan_out && CONV1D.contains(&last),
        }
    }

    pub fn update_embedding(
        &mut self,
        module: &str,
        left: &Tensor,
        right: &Tensor,
        settings: &Settings,
    ) -> Result<()> {
        let name = format!("{module}.weight");
        let [_, rank] = matrix(&name, left)?;
        let Some(number) = self.find(&name) else {
            return foreign(&name, "the base has no such weight");
        };
        let update = Update {
            left: right.transpose()?,
            right: left.transpose()?,
            magnitude: None,
            scale: settings.scale(module, rank)?,
            rounds_update: true,
        };
        self.update(number, &name, update)
    }

    pub fn update_bias(
        &mut self,
        module: &str,
        bias: &Tensor,
        left: &Tensor,
        settings: &Settings,
    ) -> Result<()> {
        let name = format!("{module}.bias");
        let [_, rank] = matrix(&name, left)?;
        let scale = settings.scale(module, rank)?;
        for (number, name, bias) in self.in_files(&name, bias)? {
            let base = self.tensor(number)?.tensor.clone();
            let (dims, dtype) = (base.shape().dims().to_vec(), base.dtype());
            if bias.shape() != base.shape() {
                return foreign(
                    &name,
                    &format!("{} does not fit {}", bias.shape(), base.shape()),
                );
            }
            let merged = Tensor::computed(Kernel::Shift { scale }, dtype, &dims, &[base, bias])?;
            self.set(number, merged);
        }
        Ok(())
    }

    pub fn update(&mut self, number: usize, name: &str, update: Update) -> Result<()> {
        let base = self.tensor(number)?.tensor.clone();
        let merged = update.merged(&base);
        let merged = merged.map_err(|error| match error {
            Error::Mapping(_) => {
                let (left, right) = (update.left.shape(), update.right.shape());
                let base = format!("{} of type {}", base.shape(), base.dtype());
                Error::Mapping(format!(
                    "{name}: an update of {left} times {right} does not fit a weight of shape {base}; {OTHER}"
                ))
            }
            error => error,
        })?;
        self.set(number, merged);
        Ok(())
    }
}

/// A product of two matrices that is added to a weight.
pub struct Update {
    pub left: Tensor,
    pub right: Tensor,
    pub magnitude: Option<Tensor>,
    pub scale: f32,
    pub rounds_update: bool,
}

impl Update {
    /// The sum with a matrix.
    pub fn merged(&self, base: &Tensor) -> Result<Tensor> {
        let kernel = Kernel::LowRank(LowRank {
            scale: self.scale,
            rounds_update: self.rounds_update,
            has_magnitude: self.magnitude.is_some(),
        });
        let mut inputs = vec![base.clone(), self.left.clone(), self.right.clone()];
        if let Some(magnitude) = &self.magnitude {
            inputs.push(magnitude.reshape(&[magnitude.shape().elements(), 1])?);
        }
        Tensor::computed(kernel, base.dtype(), base.shape().dims(), &inputs)
    }
}

fn matrix(name: &str, tensor: &Tensor) -> Result<[u64; 2]> {
    match tensor.shape().dims() {
        [rows, columns] => Ok([*rows, *columns]),
        _ => Err(Error::Mapping(format!(
            "{name}: an adapter of shape {} is no matrix (a convolution?), which is not merged; merge it with PEFT",
            tensor.shape()
        ))),
    }
}
