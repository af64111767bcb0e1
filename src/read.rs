//! `offset -> bytes` of any virtual file: pure, safe from many threads. No lock is held over I/O but that of a block or window,
//! which one thread reads for all that need it.
//!
//! ```text
//! Reader::read -> Plan (copies, casts, transposes, computed parts, blocks) -> Fetcher -> pread
//! ```

mod block;
mod blocks;
mod cast;
mod cast_copy;
mod compute;
mod computed;
mod copies;
mod factors;
mod foresight;
mod inputs;
mod passthrough;
mod plan;
mod request;
mod scatter_tile;
mod transpose_copy;

use std::fmt::Debug;
use std::io;
use std::ops::Deref;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::output::VirtualFile;
use crate::source::{Bytes, Caching, Touched};
use crate::tensor::Tensor;

use plan::{Plan, Progress};
use request::{Request, State};

pub use cast::e4m3;
pub use passthrough::passthrough_source;

/// Memory for produced blocks of transposed tensors, unless it is said otherwise.
const CACHE_SIZE: u64 = 128 << 20;

/// Produces the bytes of virtual files: a [`Reader`], or one of the tests that fails.
pub trait ReadFile: Debug + Send + Sync {
    /// Returns the bytes `offset .. offset + size` of `file`, fewer only at its end.
    ///
    /// # Errors
    /// When a source cannot be read, or is no longer what it was.
    fn read(&self, file: &VirtualFile, offset: u64, size: usize, caching: Caching)
    -> Result<Reply>;

    /// Returns how many reads of source files that took so far.
    fn source_reads(&self) -> u64 {
        0
    }
}

/// Reads virtual files, and owns the caches for it: one for each mount. Clones share them.
#[derive(Debug, Clone)]
pub struct Reader(Arc<State>);

impl Default for Reader {
    fn default() -> Self {
        Self::new(CACHE_SIZE)
    }
}

/// The bytes of a request. Dropped unsettled, such as after a failure, they count as not delivered.
#[derive(Debug, Default)]
pub struct Reply {
    bytes: Option<Bytes>,
    after: Option<After>,
}

/// The work that can wait until a reply is on its way.
#[derive(Debug)]
struct After {
    state: Arc<State>,
    caching: Caching,
    touched: Touched,
    progress: Option<Progress>,
}

impl Deref for Reply {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.as_deref().unwrap_or_default()
    }
}

impl Reply {
    /// Does what can wait until the reply to a request of `file` is on its way: reading ahead of a sequential reader where the
    /// source is slow, and giving back the page cache of a source whose bytes the kernel keeps. Best effort. Leaves memory
    /// that is scarce to other threads first.
    pub fn settle(self, file: &VirtualFile) {
        drop(self.bytes);
        let Some(after) = self.after else {
            return;
        };
        after.touched.settle();
        if let Some(progress) = after.progress {
            progress.produce_ahead(file, &after.state, after.caching);
        }
    }
}

impl Reader {
    /// With `cache_size` bytes for produced blocks; with 0 every request is produced by itself.
    pub fn new(cache_size: u64) -> Self {
        Self(Arc::new(State::new(cache_size)))
    }

    /// Fills `buffer` with the bytes from `offset` on, which must all lie inside the file.
    ///
    /// # Errors
    /// As those of [`ReadFile::read`].
    pub fn read_at(&self, file: &VirtualFile, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let end = offset.saturating_add(buffer.len() as u64);
        if end > file.size() {
            let error = io::ErrorKind::UnexpectedEof.into();
            return Err(Error::io(file.path().as_ref(), error));
        }
        self.0.foresight.note(file, offset, end);
        let request = Request::new(&self.0, Caching::Kernel);
        Plan::new(file, offset, end)?.execute(&request, buffer)
    }

    /// Fills `buffer` with the bytes of `tensor` from `offset` on, which must all lie inside it.
    ///
    /// # Errors
    /// As those of [`ReadFile::read`].
    pub fn read_tensor_at(&self, tensor: &Tensor, offset: u64, buffer: &mut [u8]) -> Result<()> {
        plan::fill(
            tensor,
            offset,
            buffer,
            &Request::new(&self.0, Caching::Kernel),
        )
    }
}

impl ReadFile for Reader {
    /// Every source is looked at after its bytes were read: they are those that it was opened with. Bytes that the kernel
    /// will not keep are asked for again: they are left in the page cache under the source's name.
    ///
    /// A map of the source handed to the kernel would save a copy, which lies in the processor's cache and costs little; but
    /// the kernel copies it after any check, so that a source rewritten in place could be shown half old and half new.
    fn read(
        &self,
        file: &VirtualFile,
        offset: u64,
        size: usize,
        caching: Caching,
    ) -> Result<Reply> {
        let end = file.size().min(offset.saturating_add(size as u64));
        let length = end.saturating_sub(offset) as usize;
        if length == 0 {
            return Ok(Reply::default());
        }
        self.0.foresight.note(file, offset, end);
        let request = Request::new(&self.0, caching);
        let plan = Plan::new(file, offset, end)?;
        let progress = plan.progress(end);
        let bytes = Some(plan.into_bytes(length, &request)?);
        let after = Some(After {
            state: self.0.clone(),
            caching,
            touched: request.touched(),
            progress,
        });
        Ok(Reply { bytes, after })
    }

    fn source_reads(&self) -> u64 {
        self.0.fetcher.reads()
    }
}

/// Fills `buffer` with the bytes of a file from `offset` on, by a reader of its own.
///
/// # Errors
/// As those of [`ReadFile::read`].
pub fn read_at(file: &VirtualFile, offset: u64, buffer: &mut [u8]) -> Result<()> {
    Reader::default().read_at(file, offset, buffer)
}
