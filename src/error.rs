//! The one error type: which file, which tensor, what was found, what to do; and the one place where it becomes an errno or
//! an exit code.

use std::io;
use std::path::{Path, PathBuf};

pub type Result<T> = std::result::Result<T, Error>;

/// Hint for a checkpoint of which a part is missing.
pub const INCOMPLETE: &str =
    "the checkpoint is incomplete; take another save, or copy this one again";

/// Hint for a checkpoint that refers to more than weights.
pub const UNTRUSTED: &str =
    "nothing was executed; save tensors alone, or take a file that you trust";

/// Everything that stops a mount or a read. Each message is one line that a user can act on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused an operation on a source file.
    #[error("{}: {source}{}", file.display(), hint(source))]
    Io { file: PathBuf, source: io::Error },
    /// The bytes of a file break its format: nothing helps but another copy.
    #[error("{}: {reason}; copy it again, or take another save", file.display())]
    Malformed { file: PathBuf, reason: String },
    /// One tensor of a file cannot be served; the reason says what can.
    #[error("{}: tensor {tensor}: {reason}", file.display())]
    Tensor {
        file: PathBuf,
        tensor: String,
        reason: String,
    },
    /// The files together are no complete, unambiguous checkpoint.
    #[error("{}: {reason}", path.display())]
    Checkpoint { path: PathBuf, reason: String },
    /// A folder holds several checkpoints where one is wanted.
    #[error("{}: holds {} checkpoints; name one of them: {}", path.display(), names.len(), names.join(", "))]
    Several { path: PathBuf, names: Vec<String> },
    /// A tensor has a form that is not served. Callers that know the file and the tensor's name add them.
    #[error("{0}")]
    Unserved(String),
    /// Options that are unknown, or that no checkpoint could satisfy.
    #[error("{0}")]
    Usage(String),
    /// Names, shapes or config.json contradict each other.
    #[error("{0}")]
    Mapping(String),
    /// A source file is no longer the one that was mounted.
    #[error("{}: changed since it was mounted ({what}); mount again", file.display())]
    Changed { file: PathBuf, what: String },
    /// The metadata of a checkpoint takes more memory than there is for it.
    #[error("{}: {reason}", file.display())]
    Memory { file: PathBuf, reason: String },
    /// The mount point or FUSE itself cannot be used.
    #[error("{}: {reason}", path.display())]
    Mount { path: PathBuf, reason: String },
    /// Where an export goes, or standard output, cannot be written.
    #[error("{}: {reason}", path.display())]
    Target { path: PathBuf, reason: String },
}

impl Error {
    pub fn io(file: &Path, source: io::Error) -> Self {
        Self::Io {
            file: file.to_owned(),
            source,
        }
    }

    pub fn malformed(file: &Path, reason: impl Into<String>) -> Self {
        Self::Malformed {
            file: file.to_owned(),
            reason: reason.into(),
        }
    }

    pub fn tensor(file: &Path, tensor: &str, reason: impl Into<String>) -> Self {
        Self::Tensor {
            file: file.to_owned(),
            tensor: tensor.to_owned(),
            reason: reason.into(),
        }
    }

    pub fn checkpoint(path: &Path, reason: impl Into<String>) -> Self {
        Self::Checkpoint {
            path: path.to_owned(),
            reason: reason.into(),
        }
    }

    pub fn mount(path: &Path, reason: impl Into<String>) -> Self {
        Self::Mount {
            path: path.to_owned(),
            reason: reason.into(),
        }
    }

    pub fn target(path: &Path, reason: impl Into<String>) -> Self {
        Self::Target {
            path: path.to_owned(),
            reason: reason.into(),
        }
    }

    /// Returns the error of a write that the operating system refused. Our own errors carry their hints.
    pub fn unwritable(path: &Path, error: &io::Error) -> Self {
        let hint = match error.get_ref() {
            Some(_) => "",
            None => "; name a place that is there and has room for this user",
        };
        Self::target(path, format!("{error}{hint}"))
    }

    /// A path of the command line that leads nowhere. `wanted` says which argument it is, and what it must name.
    pub fn absent(path: &Path, wanted: &str) -> Self {
        let reason = format!("there is no such file or folder; {wanted}");
        Self::io(path, io::Error::new(io::ErrorKind::NotFound, reason))
    }

    /// Returns the errno for a reader of the mount.
    pub fn errno(&self) -> i32 {
        match self {
            Self::Io { source, .. } => match source.raw_os_error() {
                Some(libc::EMFILE | libc::ENFILE) => libc::EMFILE,
                Some(libc::ENOMEM) => libc::ENOMEM,
                _ => libc::EIO,
            },
            Self::Malformed { .. }
            | Self::Tensor { .. }
            | Self::Checkpoint { .. }
            | Self::Several { .. }
            | Self::Unserved(_)
            | Self::Usage(_)
            | Self::Mapping(_)
            | Self::Changed { .. }
            | Self::Mount { .. }
            | Self::Target { .. } => libc::EIO,
            Self::Memory { .. } => libc::ENOMEM,
        }
    }

    /// The exit status of the command line: 1 the checkpoint is refused, 2 wrong usage (mostly told by clap), 3 the mount
    /// point, FUSE, an export's destination or standard output cannot be used, 4 a source file cannot be read. (0 is success.)
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Malformed { .. }
            | Self::Tensor { .. }
            | Self::Checkpoint { .. }
            | Self::Several { .. }
            | Self::Unserved(_)
            | Self::Mapping(_)
            | Self::Memory { .. }
            | Self::Changed { .. } => 1,
            Self::Usage(_) => 2,
            Self::Mount { .. } | Self::Target { .. } => 3,
            Self::Io { .. } => 4,
        }
    }
}

/// Returns the hint for an error of the operating system. Our own errors carry theirs.
fn hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        None => "",
        Some(libc::ENOENT) => "; copy it again, or name another checkpoint",
        Some(libc::EACCES | libc::EPERM) => "; let this user read it, or run as its owner",
        Some(libc::EMFILE | libc::ENFILE) => "; allow more open files with: ulimit -n",
        Some(libc::ENOMEM) => "; free memory, or use another machine",
        Some(_) => "; look at its disk or network, or copy it elsewhere",
    }
}
