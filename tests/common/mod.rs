//! Parts that several test binaries share.

pub mod mounts;
pub mod programs;
