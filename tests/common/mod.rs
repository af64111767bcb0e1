//! What tests share.

pub mod mounts;
pub mod programs;
