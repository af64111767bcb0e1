//! Casts of whole models.

use crate::error::Result;
use crate::mapping::{Family, MappedTensor};
use crate::tensor::Dtype;

/// Casts every f64, f32, f16 and bf16 tensor to `dtype`, those that the family keeps in f32 to that. Other types stay.
pub fn cast(
    tensors: Vec<MappedTensor>,
    dtype: Option<Dtype>,
    family: Option<&Family>,
) -> Result<Vec<MappedTensor>> {
    let Some(dtype) = dtype else {
        return Ok(tensors);
    };
    tensors
        .into_iter()
        .map(|tensor| cast_one(tensor, dtype, family))
        .collect()
}

fn cast_one(tensor: MappedTensor, dtype: Dtype, family: Option<&Family>) -> Result<MappedTensor> {
    let own = tensor.tensor.dtype();
    let stays_f32 = family.is_some_and(|family| family.stays_f32(&tensor.name));
    let dtype = match own {
        Dtype::F32 | Dtype::F64 if stays_f32 => Dtype::F32,
        _ if own.is_castable() => dtype,
        _ => own,
    };
    Ok(MappedTensor {
        tensor: tensor.tensor.cast(dtype)?,
        ..tensor
    })
}
