//! Bodies of answers: bytes at hand, or pieces of a file that are produced while they are sent.

use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::error::{Error, Result};
use crate::output::VirtualFile;
use crate::read::Reader;

/// Bytes of a file that are produced at once.
const PIECE: u64 = 1 << 20;

/// Pieces that are produced before the client takes one.
const AHEAD: usize = 2;

/// How long a client may take for a piece.
const PATIENCE: Duration = Duration::from_secs(60);

/// The body of an answer.
#[derive(Debug)]
pub struct Content {
    left: u64,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Ready(Option<Bytes>),
    Pieces(mpsc::Receiver<Result<Bytes>>),
}

impl Content {
    pub fn ready(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self {
            left: bytes.len() as u64,
            source: Source::Ready(Some(bytes)),
        }
    }

    /// The bytes `range` of `file`. The first piece is produced before this returns, so that its failure is a status.
    ///
    /// # Errors
    /// When the first piece cannot be produced.
    pub async fn of(reader: &Reader, file: Arc<VirtualFile>, range: Range<u64>) -> Result<Self> {
        let reader = reader.clone();
        let (sender, receiver) = mpsc::channel(AHEAD);
        let left = range.end.saturating_sub(range.start);
        let end = range.end.min(range.start.saturating_add(PIECE));
        let first = produce(&reader, file.clone(), range.start..end).await?;
        tokio::spawn(async move {
            let mut piece = Ok(first);
            let mut start = end;
            loop {
                let is_last = piece.is_err() || start >= range.end;
                if let Err(error) = &piece {
                    tracing::warn!("{}: {error}", file.path());
                }
                let sent = timeout(PATIENCE, sender.send(piece)).await;
                if is_last || !matches!(sent, Ok(Ok(()))) {
                    return;
                }
                let end = range.end.min(start.saturating_add(PIECE));
                piece = produce(&reader, file.clone(), start..end).await;
                start = end;
            }
        });
        Ok(Self {
            left,
            source: Source::Pieces(receiver),
        })
    }
}

/// Produces a piece on a thread that may wait.
async fn produce(reader: &Reader, file: Arc<VirtualFile>, range: Range<u64>) -> Result<Bytes> {
    let reader = reader.clone();
    let path = file.path().to_owned();
    let produced = tokio::task::spawn_blocking(move || {
        let length = range.end.saturating_sub(range.start);
        let mut piece = vec![0; usize::try_from(length).unwrap_or(0)];
        reader.read_at(&file, range.start, &mut piece)?;
        Ok(Bytes::from(piece))
    });
    let bug = |_| Error::checkpoint(path.as_ref(), "cannot be read for a bug in ckptfs");
    produced.await.map_err(bug)?
}

impl Body for Content {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>>>> {
        let next = match &mut self.source {
            Source::Ready(bytes) => bytes.take().filter(|bytes| !bytes.is_empty()).map(Ok),
            Source::Pieces(pieces) => match pieces.poll_recv(context) {
                Poll::Ready(next) => next,
                Poll::Pending => return Poll::Pending,
            },
        };
        let next = next.map(|piece| {
            let piece = piece?;
            self.left = self.left.saturating_sub(piece.len() as u64);
            Ok(Frame::data(piece))
        });
        Poll::Ready(next)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
