//! Files made byte by byte, well formed until a case bends them.

pub mod dcp;
pub mod pickle;
pub mod ranks;
pub mod tensors;
pub mod zip;
