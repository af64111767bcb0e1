//! Casts of whole models.

use crate::error::{Error, Result};
use crate::mapping::{Family, MappedTensor};
use crate::tensor::Dtype;

/// Casts every f32, f16 and bf16 tensor to `dtype`, except those that the family keeps in f32. Other types stay.
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
    let stays_f32 =
        own == Dtype::F32 && family.is_some_and(|family| family.stays_f32(&tensor.name));
    match own {
        Dtype::F32 | Dtype::F16 | Dtype::BF16 if !stays_f32 => Ok(MappedTensor {
            tensor: tensor.tensor.cast(dtype)?,
            ..tensor
        }),
        Dtype::F64 => Err(Error::Mapping(format!(
            "{}: no cast from F64; pass --dtype keep",
            tensor.name
        ))),
        _ => Ok(tensor),
    }
}
