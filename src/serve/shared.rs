//! The part of a server that every request needs.

use tokio::task::spawn_blocking;

use super::guard::Guard;
use super::library::Library;
use crate::error::{Error, Result};
use crate::read::Reader;

/// All that requests share.
pub struct Shared {
    pub library: Library,
    pub reader: Reader,
    pub repository: Option<String>,
    pub guard: Guard,
}

/// Runs work that may wait for the source on a thread of its own.
pub async fn waiting<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let bug = |_| Error::Mapping("a request failed by a bug in ckptfs".to_owned());
    spawn_blocking(work).await.map_err(bug)?
}
