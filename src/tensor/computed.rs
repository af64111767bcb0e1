//! Tensors that are computed from others: which inputs fit a kernel.

use super::dtype::Dtype;
use super::kernel::{BLOCK, Global, Kernel};
use super::node::{Expression, Tensor};
use super::shape::{checked, impossible};
use crate::error::Result;

impl Tensor {
    /// The elements rounded to another float type, as torch's `.to()` rounds.
    pub fn cast(&self, dtype: Dtype) -> Result<Self> {
        if dtype == self.dtype() {
            return Ok(self.clone());
        }
        if !(dtype.is_cast() && self.dtype().is_castable()) || self.has_cast() {
            return impossible(format!("no cast from {} to {dtype}", self.dtype()));
        }
        let (shape, inputs) = (self.shape().clone(), [self.clone()].into());
        let kernel = Kernel::Cast;
        Ok(Self::new(
            dtype,
            shape,
            Expression::Computed { kernel, inputs },
        ))
    }

    /// A tensor that `kernel` computes from `inputs`, which are vectors or matrices of the shapes that it takes.
    ///
    /// # Errors
    /// When they do not fit each other.
    pub fn computed(kernel: Kernel, dtype: Dtype, dims: &[u64], inputs: &[Self]) -> Result<Self> {
        let (rows, columns) = sides(dims);
        let elementwise = kernel.is_elementwise();
        let inputs = inputs.iter().map(|input| match elementwise {
            true => input.reshape(&[rows, columns]),
            false => input.as_matrix(),
        });
        let inputs: Vec<Self> = inputs.collect::<Result<_>>()?;
        check(&kernel, dtype, [rows, columns], &inputs)?;
        let shape = checked(&[rows, columns])?;
        let inputs = inputs.into();
        Self::new(dtype, shape, Expression::Computed { kernel, inputs }).reshape(dims)
    }

    /// All dimensions but the last as rows.
    fn as_matrix(&self) -> Result<Self> {
        let (rows, columns) = sides(self.shape().dims());
        self.reshape(&[rows, columns])
    }

    /// The kernel and the inputs of a computed tensor.
    pub fn as_computed(&self) -> Option<(&Kernel, &[Self])> {
        match self.expression() {
            Expression::Computed { kernel, inputs } => Some((kernel, inputs)),
            _ => None,
        }
    }

    /// Rows and columns of a matrix.
    pub fn sides(&self) -> (u64, u64) {
        sides(self.shape().dims())
    }
}

fn sides(dims: &[u64]) -> (u64, u64) {
    match dims.split_last() {
        Some((columns, rows)) => (rows.iter().product(), *columns),
        None => (1, 1),
    }
}

fn check(kernel: &Kernel, dtype: Dtype, of: [u64; 2], inputs: &[Tensor]) -> Result<()> {
    let wanted = wanted(kernel, dtype, of, inputs);
    let found: Vec<[u64; 2]> = inputs.iter().map(|input| input.sides().into()).collect();
    match wanted {
        Some(wanted) if wanted == found => Ok(()),
        _ => impossible(format!(
            "{} of shape {of:?} and type {dtype} cannot be made of matrices {found:?}",
            kernel.formula()
        )),
    }
}

/// The sides that the inputs must have. `None` where the types or the number of inputs do not fit.
fn wanted(kernel: &Kernel, dtype: Dtype, of: [u64; 2], inputs: &[Tensor]) -> Option<Vec<[u64; 2]>> {
    let [rows, columns] = of;
    let floats = || dtype.is_cast() && inputs.iter().all(|input| input.dtype().is_castable());
    match kernel {
        Kernel::Cast => None,
        Kernel::Combine { weights, .. } => {
            (floats() && weights.len() == inputs.len()).then(|| vec![of; inputs.len()])
        }
        Kernel::Deltas { weights } => {
            (floats() && weights.len() + 1 == inputs.len()).then(|| vec![of; inputs.len()])
        }
        Kernel::Shift { .. } => floats().then(|| vec![of; 2]),
        Kernel::LowRank(low_rank) => {
            let (_, rank) = inputs.get(1)?.sides();
            let mut wanted = vec![of, [rows, rank], [rank, columns]];
            wanted.extend(low_rank.has_magnitude.then_some([rows, 1]));
            floats().then_some(wanted)
        }
        Kernel::Scaled(scaled) => {
            let [height, width] = scaled.block;
            let per_element = scaled.code.per_element(inputs.first()?.dtype());
            let scales = [rows.div_ceil(height), columns.div_ceil(width)];
            let mut wanted = vec![[rows, columns.div_ceil(per_element)], scales];
            wanted.extend((scaled.global != Global::None).then_some([1, 1]));
            wanted.extend(scaled.zero.map(|zero| zero.sides(scales)));
            dtype.is_cast().then_some(wanted)
        }
        Kernel::BlockFp8 => {
            let scales = [rows.div_ceil(BLOCK), columns.div_ceil(BLOCK)];
            (dtype == Dtype::F8_E4M3).then(|| vec![of, scales])
        }
        Kernel::BlockScales => {
            let (rows, columns) = inputs.first()?.sides();
            let is_of = of == [rows.div_ceil(BLOCK), columns.div_ceil(BLOCK)];
            (dtype == Dtype::F32 && is_of).then(|| vec![[rows, columns]])
        }
    }
}
