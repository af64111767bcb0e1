//! Operations by name, as tables spell them: `unrope head_dim`, `narrow 0, 0, vocab_size`, `transpose`.

use std::slice;

use serde::Deserialize;

use super::config::OTHER;
use super::expression::{Expression, Scope};
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// A step from one tensor to another. Arguments may speak of config.json and of the tensor's own sizes, `d0`, `d1`, ...
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Operation {
    /// Meta's rotary order, whose pairs are neighbours, to Hugging Face's, whose pairs are half a head apart: in each head
    /// of `head_dim` rows, row 2j + s becomes row s * head_dim / 2 + j.
    Unrope(Expression),
    /// The last two dimensions exchanged.
    Transpose,
    Permute(Vec<Expression>),
    /// The last two dimensions, where all before them have length 1.
    Matrix,
    Reshape(Vec<Expression>),
    /// Dimension, start, size.
    Narrow([Expression; 3]),
    /// Rows per block, blocks per group, start, count: of each group of blocks of rows these.
    Blocks([Expression; 4]),
}

impl TryFrom<String> for Operation {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Self, String> {
        let (name, arguments) = text.split_once(' ').unwrap_or((&text, ""));
        let arguments = arguments
            .split(',')
            .filter(|argument| !argument.trim().is_empty())
            .map(str::parse)
            .collect::<std::result::Result<Vec<Expression>, String>>()?;
        let count = arguments.len();
        let wrong = || format!("operation {text:?} does not take {count} arguments");
        match name {
            "unrope" => Ok(Self::Unrope(
                arguments.into_iter().next().ok_or_else(wrong)?,
            )),
            "transpose" if count == 0 => Ok(Self::Transpose),
            "matrix" if count == 0 => Ok(Self::Matrix),
            "permute" => Ok(Self::Permute(arguments)),
            "reshape" => Ok(Self::Reshape(arguments)),
            "narrow" => Ok(Self::Narrow(arguments.try_into().map_err(|_| wrong())?)),
            "blocks" => Ok(Self::Blocks(arguments.try_into().map_err(|_| wrong())?)),
            _ => Err(format!("no operation is called {text:?}")),
        }
    }
}

impl Operation {
    pub fn keeps_shape(&self) -> bool {
        matches!(self, Self::Unrope(_))
    }

    pub fn arguments(&self) -> &[Expression] {
        match self {
            Self::Transpose | Self::Matrix => &[],
            Self::Unrope(head_dim) => slice::from_ref(head_dim),
            Self::Permute(all) | Self::Reshape(all) => all,
            Self::Narrow(all) => all,
            Self::Blocks(all) => all,
        }
    }

    pub fn apply(&self, tensor: &Tensor, scope: &dyn Scope) -> Result<Tensor> {
        let sized = Sized { tensor, scope };
        let size = |expression: &Expression| size(expression, &sized);
        let sizes =
            |expressions: &[Expression]| expressions.iter().map(size).collect::<Result<Vec<u64>>>();
        match self {
            Self::Transpose => tensor.transpose(),
            Self::Matrix => matrix(tensor),
            Self::Reshape(dims) => tensor.reshape(&sizes(dims)?),
            Self::Narrow([dim, start, length]) => {
                tensor.narrow(size(dim)? as usize, size(start)?, size(length)?)
            }
            Self::Permute(axes) => {
                let axes: Vec<usize> = sizes(axes)?.into_iter().map(|axis| axis as usize).collect();
                tensor.permute(&axes)
            }
            Self::Unrope(head_dim) => unrope(tensor, size(head_dim)?),
            Self::Blocks([rows, blocks, start, count]) => {
                let group = [size(rows)?, size(blocks)?];
                take_blocks(tensor, group, [size(start)?, size(count)?])
            }
        }
    }
}

/// The value of an argument that is a size.
pub(super) fn size(expression: &Expression, scope: &dyn Scope) -> Result<u64> {
    let value = expression.evaluate(scope).map_err(Error::Mapping)?;
    u64::try_from(value).map_err(|_| Error::Mapping(format!("{expression} is {value}")))
}

fn matrix(tensor: &Tensor) -> Result<Tensor> {
    let shape = tensor.shape();
    match shape.dims() {
        [leading @ .., rows, columns] if leading.iter().all(|length| *length == 1) => {
            tensor.reshape(&[*rows, *columns])
        }
        _ => Err(Error::Mapping(format!("shape {shape} is no matrix"))),
    }
}

fn unrope(tensor: &Tensor, head_dim: u64) -> Result<Tensor> {
    let half = [head_dim / 2, 2];
    swap_in_heads(tensor, head_dim, half)
}

/// The inverse of [`unrope`]: in each head row s * head_dim / 2 + j becomes row 2j + s.
pub(super) fn rope(tensor: &Tensor, head_dim: u64) -> Result<Tensor> {
    let half = [2, head_dim / 2];
    swap_in_heads(tensor, head_dim, half)
}

/// Exchanges the two axes that the rows of each head are `split` into.
fn swap_in_heads(tensor: &Tensor, head_dim: u64, split: [u64; 2]) -> Result<Tensor> {
    let dims = tensor.shape().dims();
    let whole =
        |rows: &u64| head_dim > 0 && head_dim.is_multiple_of(2) && rows.is_multiple_of(head_dim);
    let Some((rows, rest)) = dims.split_first().filter(|(rows, _)| whole(rows)) else {
        let reason = format!(
            "shape {} has no heads of {head_dim} rows; {OTHER}",
            tensor.shape()
        );
        return Err(Error::Mapping(reason));
    };
    let split = [&[rows / head_dim], &split[..], rest].concat();
    let axes: Vec<usize> = [0, 2, 1].into_iter().chain(3..split.len()).collect();
    tensor.reshape(&split)?.permute(&axes)?.reshape(dims)
}

fn take_blocks(
    tensor: &Tensor,
    [rows, blocks]: [u64; 2],
    [start, count]: [u64; 2],
) -> Result<Tensor> {
    let group = rows.checked_mul(blocks).filter(|group| *group > 0);
    let dims = tensor.shape().dims();
    let Some((groups, rest)) = dims.split_first().and_then(|(all, rest)| {
        let group = group.filter(|group| all.is_multiple_of(*group))?;
        Some((all / group, rest))
    }) else {
        let shape = tensor.shape();
        let reason =
            format!("shape {shape} has no groups of {blocks} blocks of {rows} rows; {OTHER}");
        return Err(Error::Mapping(reason));
    };
    let split = [&[groups, blocks, rows], rest].concat();
    let taken = tensor.reshape(&split)?.narrow(1, start, count)?;
    let joined = [&[groups * count * rows], rest].concat();
    taken.reshape(&joined)
}

/// A scope that also knows a tensor's sizes.
pub struct Sized<'a> {
    pub tensor: &'a Tensor,
    pub scope: &'a dyn Scope,
}

impl Scope for Sized<'_> {
    fn number(&self, name: &str) -> std::result::Result<i64, String> {
        let dim = name
            .strip_prefix('d')
            .and_then(|digits| digits.parse::<usize>().ok());
        match dim {
            None => self.scope.number(name),
            Some(dim) => {
                let shape = self.tensor.shape();
                let size = shape
                    .dims()
                    .get(dim)
                    .ok_or_else(|| format!("shape {shape} has no {name}; {OTHER}"))?;
                i64::try_from(*size).map_err(|_| format!("{name} is {size}"))
            }
        }
    }

    fn list(&self, name: &str) -> std::result::Result<Vec<i64>, String> {
        self.scope.list(name)
    }
}
