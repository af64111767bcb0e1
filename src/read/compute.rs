//! The kernels: each fills a box of its result with elements of the result's type.

mod blocks_of_fp8;
mod combine;
mod interleaved;
mod low_rank;
mod scaled;
mod wanted;

use std::ops::Range;

use super::inputs::Inputs;
use crate::error::{Error, Result};
use crate::tensor::{Kernel, Tensor};
use wanted::Wanted;

/// Fills `target` with a box of a computed matrix, row after row.
pub(super) fn compute(
    from: &dyn Inputs,
    tensor: &Tensor,
    rows: Range<u64>,
    columns: Range<u64>,
    target: &mut [u8],
) -> Result<()> {
    let Some((kernel, inputs)) = tensor.as_computed() else {
        return Err(Error::Mapping("a stored array has no kernel".to_owned()));
    };
    let wanted = Wanted {
        from,
        inputs,
        dtype: tensor.dtype(),
        rows,
        columns,
    };
    match kernel {
        // A cast of a plain tensor is read as that is; this is one of an input.
        Kernel::Cast => Err(Error::Mapping("a cast is no matrix".to_owned())),
        Kernel::Combine { weights, divisor } => wanted.elementwise(target, |all, out| {
            combine::combine(all, weights, *divisor, out)
        }),
        Kernel::Deltas { weights } => {
            wanted.elementwise(target, |all, out| combine::deltas(all, weights, out))
        }
        Kernel::Shift { scale } => {
            wanted.elementwise(target, |all, out| combine::shift(all, *scale, out))
        }
        Kernel::LowRank(kernel) => low_rank::fill(&wanted, kernel, target),
        Kernel::Scaled(kernel) => scaled::fill(&wanted, kernel, target),
        Kernel::BlockFp8 => blocks_of_fp8::fill(&wanted, target),
        Kernel::BlockScales => blocks_of_fp8::fill_scales(&wanted, target),
    }
}

#[cfg(test)]
mod tests;
