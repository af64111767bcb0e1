//! Where source bytes lie and how they get into memory: opening, identity and version, descriptors, direct I/O, and the
//! page-cache policy. Knows nothing of tensors, formats or FUSE.

mod budget;
mod descriptors;
mod direct_io;
mod file;
mod open;
mod pace;
mod page_cache;
mod version;

pub use budget::{Budget, Charge};
pub use direct_io::DirectBuffer;
pub use file::{Rows, SourceFile, Stretch, source_reads};
