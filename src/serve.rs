//! A view over HTTP, for readers that cannot mount: the API of the Hugging Face hub, and S3 for reading.
//!
//! ```text
//! HF_ENDPOINT=http://127.0.0.1:8000       hf download any/name
//! AWS_ENDPOINT_URL=http://127.0.0.1:8000  aws s3 ls s3://view/
//! ```
//!
//! A request names a file of a snapshot: the one checkpoint, or a save of a run, whose name is a revision of the repository
//! and a folder of the bucket. Bytes are produced as for a mount, a piece at a time, on threads that may wait for the source.
//! A piece that fails ends the connection: a client never takes a short body for the whole.

mod answer;
mod beacon;
mod body;
mod guard;
mod hub;
mod library;
mod range;
mod s3;
mod server;
mod shared;

pub use beacon::{Served, served};
pub use library::Library;
pub use server::{Options, Server};
