//! Tensors and rows that adapters hold whole: they take the place of the base's.

use std::sync::Arc;

use super::settings::Settings;
use super::weights::{Weights, foreign};
use crate::error::{Error, Result};
use crate::mapping::MappedTensor;
use crate::tensor::Tensor;

impl Weights<'_> {
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
            if let Some(own) = self.tensors.get_mut(number) {
                own.sources.clone_from(&whole.sources);
                own.tensor = tensor;
            }
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

    /// Puts trained tokens in the place of the base's rows.
    pub fn replace_rows(
        &mut self,
        module: &str,
        tokens: &MappedTensor,
        settings: &Settings,
    ) -> Result<()> {
        let rows = &tokens.tensor;
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
        self.set(number, Tensor::concat(&parts, 0)?, &tokens.sources);
        Ok(())
    }
}
