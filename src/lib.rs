//! Shows any training checkpoint as the Hugging Face directory that its users need, without converting it.
//!
//! Data flows one way through the house, and each floor uses only what lies below it:
//!
//! ```text
//! source -> tensor -> checkpoint -> run -> mapping -> output -> read -> view -> tree -> fs -> mount, export, verify -> cli
//! ```
#![deny(
    clippy::undocumented_unsafe_blocks,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod access;
pub mod checkpoint;
pub mod cli;
mod destination;
pub mod error;
pub mod export;
pub mod fs;
mod limits;
pub mod mapping;
pub mod mount;
mod mountinfo;
pub mod output;
pub mod parallel;
pub mod read;
pub mod run;
#[cfg(feature = "remote")]
pub mod serve;
pub mod source;
mod statx;
pub mod tensor;
mod text;
pub mod tree;
pub mod verify;
pub mod view;
