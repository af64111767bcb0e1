//! The reference: a tensor is its sizes and a list of its elements. Clear before fast.

pub mod program;

use ckptfs::tensor::Dtype;
use half::{bf16, f16};

#[derive(Debug, Clone, PartialEq)]
pub struct Naive {
    pub dims: Vec<u64>,
    /// In row-major order.
    pub elements: Vec<f32>,
}

impl Naive {
    /// Element `index` is the number of the place where it is stored.
    pub fn strided(dims: &[u64], strides: &[u64], offset: u64) -> Self {
        let place =
            |index: &[u64]| offset + index.iter().zip(strides).map(|(i, s)| i * s).sum::<u64>();
        Self::from_fn(dims, |index| place(index) as f32)
    }

    pub fn narrow(&self, dim: usize, start: u64, size: u64) -> Self {
        let mut dims = self.dims.clone();
        dims[dim] = size;
        Self::from_fn(&dims, |index| {
            let mut index = index.to_vec();
            index[dim] += start;
            self.at(&index)
        })
    }

    pub fn permute(&self, axes: &[usize]) -> Self {
        let dims: Vec<u64> = axes.iter().map(|axis| self.dims[*axis]).collect();
        Self::from_fn(&dims, |index| {
            let mut from = vec![0; index.len()];
            for (i, axis) in axes.iter().enumerate() {
                from[*axis] = index[i];
            }
            self.at(&from)
        })
    }

    pub fn reshape(&self, dims: &[u64]) -> Self {
        Self {
            dims: dims.to_vec(),
            elements: self.elements.clone(),
        }
    }

    pub fn concat(parts: &[Self], dim: usize) -> Self {
        let mut dims = parts[0].dims.clone();
        dims[dim] = parts.iter().map(|part| part.dims[dim]).sum();
        Self::from_fn(&dims, |index| {
            let mut index = index.to_vec();
            for part in parts {
                if index[dim] < part.dims[dim] {
                    return part.at(&index);
                }
                index[dim] -= part.dims[dim];
            }
            unreachable!()
        })
    }

    pub fn stack(parts: &[Self]) -> Self {
        let dims = [&[parts.len() as u64], &*parts[0].dims].concat();
        Self::from_fn(&dims, |index| parts[index[0] as usize].at(&index[1..]))
    }

    fn at(&self, index: &[u64]) -> f32 {
        let flat = index
            .iter()
            .zip(&self.dims)
            .fold(0, |flat, (i, size)| flat * size + i);
        self.elements[flat as usize]
    }

    fn from_fn(dims: &[u64], element: impl Fn(&[u64]) -> f32) -> Self {
        let count: u64 = dims.iter().product();
        let elements = (0..count).map(|flat| {
            let mut rest = flat;
            let mut index = vec![0; dims.len()];
            for dim in (0..dims.len()).rev() {
                index[dim] = rest % dims[dim];
                rest /= dims[dim];
            }
            element(&index)
        });
        Self {
            dims: dims.to_vec(),
            elements: elements.collect(),
        }
    }
}

/// The bytes of one element.
pub fn encode(value: f32, dtype: Dtype) -> Vec<u8> {
    match dtype {
        Dtype::F64 => f64::from(value).to_le_bytes().to_vec(),
        Dtype::F32 => value.to_le_bytes().to_vec(),
        Dtype::BF16 => bf16::from_f32(value).to_le_bytes().to_vec(),
        Dtype::F16 => f16::from_f32(value).to_le_bytes().to_vec(),
        other => unimplemented!("{other}"),
    }
}
