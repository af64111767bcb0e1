//! The lazy algebra: a tensor is a dtype, a shape and an expression over bytes in files. Nothing else can exist.

mod computed;
mod cover;
mod dtype;
mod kernel;
mod named;
mod nest;
mod node;
mod provenance;
mod region;
mod reshape;
mod runs;
mod shape;
mod stored;
mod tiling;
mod view;

pub use dtype::Dtype;
pub use kernel::{BLOCK, Code, Global, Kernel, LowRank, Scaled, Zero};
pub use named::SourceTensor;
pub use nest::{Loop, Nest, each_offset};
pub use node::{Identity, Tensor, Tile};
pub use runs::{ComputedBox, Part, nests, pieces, pieces_of_box};
pub use shape::{Dims, MAX_RANK, Shape};
pub use stored::{Locate, Stored, Strides, contiguous};
