//! Operations run backwards: the tensor that an operation was applied to, from its result.

use super::expression::Scope;
use super::operation::{Operation, Sized, rope, size};
use crate::error::{Error, Result};
use crate::tensor::{MAX_RANK, Tensor};

impl Operation {
    /// Whether the operation takes a part of a tensor, so that only all parts together give it back.
    pub fn is_tile(&self) -> bool {
        matches!(self, Self::Narrow(_) | Self::Blocks(_))
    }

    /// Why the operation cannot be run backwards, if it cannot. Tiles can, all of one source together.
    pub fn one_way(&self) -> Option<String> {
        match self {
            Self::Reshape(dims) => {
                let solvable = |dim: &&super::expression::Expression| {
                    dim.has_size() && !matches!(dim.solve_size(1, &Unknown), Ok(Some(_)) | Err(_))
                };
                let dim = dims.iter().find(solvable)?;
                Some(format!("{dim} cannot be solved for a size"))
            }
            Self::Matrix => Some("it does not tell which dimensions were there".to_owned()),
            _ => None,
        }
    }

    /// The tensor of which this operation makes `result`.
    ///
    /// # Errors
    /// When the operation is a tile, or the result is none of its.
    pub fn invert(&self, result: &Tensor, scope: &dyn Scope) -> Result<Tensor> {
        let sized = Sized {
            tensor: result,
            scope,
        };
        match self {
            Self::Unrope(head_dim) => rope(result, size(head_dim, &sized)?),
            Self::Transpose => result.transpose(),
            Self::Permute(axes) => {
                let axes = axes.iter().map(|axis| size(axis, &sized));
                let axes = axes.collect::<Result<Vec<u64>>>()?;
                let mut inverse: Vec<usize> = (0..axes.len()).collect();
                inverse.sort_by_key(|dim| axes[*dim]);
                result.permute(&inverse)
            }
            Self::Reshape(dims) => result.reshape(&solved(dims, result, scope)?),
            Self::Matrix | Self::Narrow(_) | Self::Blocks(_) => Err(Error::Mapping(
                "the tensor that it was made of cannot be told".to_owned(),
            )),
        }
    }
}

/// A scope in which no name has a value.
struct Unknown;

impl Scope for Unknown {
    fn number(&self, name: &str) -> std::result::Result<i64, String> {
        Err(format!("{name} has no value"))
    }

    fn list(&self, name: &str) -> std::result::Result<Vec<i64>, String> {
        self.number(name).map(|_| Vec::new())
    }
}

/// The shape that a reshape to `dims` started from, where its result is `result`.
fn solved(
    dims: &[super::expression::Expression],
    result: &Tensor,
    scope: &dyn Scope,
) -> Result<Vec<u64>> {
    let refuse = |reason: String| Error::Mapping(reason);
    let mut sizes = [None; MAX_RANK];
    for (dim, value) in dims.iter().zip(result.shape().dims()) {
        match dim.solve_size(*value, scope).map_err(refuse)? {
            Some((at, size)) => {
                let place = sizes.get_mut(at);
                *place.ok_or_else(|| refuse(format!("no tensor has a dimension {at}")))? =
                    Some(size);
            }
            None if dim.has_size() => {
                return Err(refuse(format!("{dim} cannot be solved for a size")));
            }
            None => {}
        }
    }
    Ok(sizes.into_iter().map_while(|size| size).collect())
}
