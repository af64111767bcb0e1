//! Objects of S3, Google Cloud Storage, Azure, web servers and the Hugging Face hub as source files.
//!
//! An address (`s3://bucket/run/step-4000`) stands in the place of a path. A folder of a store is listed once for many looks, and
//! the listing tells size and version of each object, so that opening one asks for nothing. From then on the object is held
//! to that version: each request carries its ETag, and each answer is compared with ETag, generation and total size, because
//! several servers ignore the condition. The first answer that differs condemns the object, and its readers get errors.
//!
//! ```text
//! read -> file (what to fetch) -> cache (blocks, streams) -> object (one version, retries) -> connector (status) -> HTTP
//! ```
//!
//! Failures that pass, such as 503, a reset or a truncated answer, are repeated from the byte that is missing until a budget of
//! time is spent. Texts of servers are never shown, as they may hold keys or signed URLs.

mod address;
mod aws;
mod bucket;
mod cache;
mod connect;
mod connector;
mod failure;
mod file;
mod hub;
mod listing;
mod object;
mod patience;
mod runtime;
mod secrets;
mod version;

pub use address::{Address, Scheme, admit, is_remote};
pub use bucket::{Found, Opened, find, list, open};
pub use cache::cache;
pub use file::{Begun, RemoteFile, has_objects};
#[cfg(test)]
pub use listing::PROBED;
pub use object::Object;
pub use patience::set_budget;
pub use runtime::handle as runtime;
pub use version::Version;
