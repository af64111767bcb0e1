//! Updates of the base's weights: products of two narrow matrices, and biases.

use std::sync::Arc;

use super::settings::Settings;
use super::weights::{OTHER, Weights, foreign};
use crate::error::{Error, Result};
use crate::mapping::MappedTensor;
use crate::tensor::{Kernel, LowRank, Tensor};

/// Modules that hold their weight as [in, out], and the families of them.
const CONV1D: [&str; 4] = ["c_attn", "c_proj", "c_fc", "q_attn"];
const CONV1D_TYPES: [&str; 4] = ["gpt2", "openai-gpt", "imagegpt", "decision_transformer"];

/// The parts that an adapter has for the update of one matrix.
#[derive(Clone, Copy)]
pub struct Factors<'a> {
    pub left: &'a MappedTensor,
    pub right: &'a MappedTensor,
    pub magnitude: Option<&'a MappedTensor>,
}

impl Factors<'_> {
    /// The names of all parts.
    pub fn sources(&self) -> Vec<Arc<str>> {
        let all = [self.right, self.left].into_iter().chain(self.magnitude);
        all.flat_map(|part| part.sources.iter().cloned()).collect()
    }
}

/// A product of two matrices that is added to a weight.
pub struct Update {
    pub left: Tensor,
    pub right: Tensor,
    pub magnitude: Option<Tensor>,
    pub scale: f32,
    pub rounds_update: bool,
    /// The names of the tensors that it is made of.
    pub sources: Vec<Arc<str>>,
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

impl Weights<'_> {
    pub fn update_linear(
        &mut self,
        module: &str,
        factors: Factors<'_>,
        settings: &Settings,
    ) -> Result<()> {
        let name = format!("{module}.weight");
        let (left, right) = (&factors.left.tensor, &factors.right.tensor);
        let magnitude = factors.magnitude.map(|magnitude| &magnitude.tensor);
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
                sources: factors.sources(),
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
        factors: Factors<'_>,
        settings: &Settings,
    ) -> Result<()> {
        let name = format!("{module}.weight");
        let (left, right) = (&factors.left.tensor, &factors.right.tensor);
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
            sources: factors.sources(),
        };
        self.update(number, &name, update)
    }

    pub fn update_bias(
        &mut self,
        module: &str,
        bias: &MappedTensor,
        left: &MappedTensor,
        settings: &Settings,
    ) -> Result<()> {
        let name = format!("{module}.bias");
        let [_, rank] = matrix(&name, &left.tensor)?;
        let scale = settings.scale(module, rank)?;
        let sources = &bias.sources;
        for (number, name, bias) in self.in_files(&name, &bias.tensor)? {
            let base = self.tensor(number)?.tensor.clone();
            let (dims, dtype) = (base.shape().dims().to_vec(), base.dtype());
            if bias.shape() != base.shape() {
                return foreign(
                    &name,
                    &format!("{} does not fit {}", bias.shape(), base.shape()),
                );
            }
            let merged = Tensor::computed(Kernel::Shift { scale }, dtype, &dims, &[base, bias])?;
            self.set(number, merged, sources);
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
        self.set(number, merged, &update.sources);
        Ok(())
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
