//! Parts that several test binaries share.

pub mod hint;
pub mod mounts;
pub mod naive;
pub mod programs;
