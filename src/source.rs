//! Where source bytes lie and how they get into memory: opening, identity and version, descriptors, direct I/O, and the
//! page-cache policy. Knows nothing of tensors, formats or FUSE.
//!
//! ```text
//! open, version, descriptors, budget -> file -> wanted, touched, windows -> fetcher
//!                  direct_io, memory -> bytes                            -> fetcher
//!                                       route (the rule alone)           -> fetcher
//! ```

mod budget;
mod bytes;
mod descriptors;
mod direct_io;
mod fetcher;
mod file;
mod mechanism;
mod memory;
mod open;
mod pace;
mod page_cache;
pub mod place;
#[cfg(feature = "remote")]
pub mod remote;
mod route;
mod touched;
mod version;
mod wanted;
mod windows;

pub use budget::{Budget, Charge};
pub use bytes::Bytes;
pub use fetcher::Fetcher;
pub use file::SourceFile;
pub use memory::Memory;
pub use page_cache::Caching;
pub use touched::Touched;
pub use wanted::Wanted;
