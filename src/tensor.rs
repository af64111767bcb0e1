//! The lazy algebra: a tensor is a dtype, a shape and an expression over bytes in files. Nothing else can exist.

mod descriptors;
mod dtype;
mod file;
mod named;
mod nest;
mod opening;
mod past_cache;
mod provenance;
mod region;
mod reshape;
mod residency;
mod runs;
mod shape;
mod stamp;
mod stored;
mod tiling;
mod view;

pub use dtype::Dtype;
pub use file::{Rows, SourceFile, Stretch, source_reads};
pub use named::SourceTensor;
pub use nest::{Loop, Nest, each_offset};
pub use past_cache::Landed;
pub use runs::nests;
pub use shape::{Dims, MAX_RANK, Shape};
pub use stored::{Layout, Locate, Stored, contiguous};
pub use view::{Identity, Tensor, Tile};
