//! Failures of requests: which of them pass, and the words for those that do not.
//!
//! The texts of servers and clients may hold signed URLs and key ids, so none of them is shown: a message is made from the
//! status and the error's code alone.

use std::error::Error as StdError;
use std::fmt::{self, Display, Formatter};
use std::io;
use std::path::Path;

use object_store::client::{HttpError, HttpErrorKind};

use crate::error::Error;

/// An answer that is no success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub status: u16,
    /// `Code` of an error in XML, such as `AccessDenied`.
    pub code: String,
    /// The region in which a bucket lies, where S3 tells it.
    pub region: Option<String>,
}

impl Display for Refusal {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &*self.code {
            "" => write!(f, "{}", self.status),
            code => write!(f, "{} {code}", self.status),
        }
    }
}

impl StdError for Refusal {}

/// The outcome of a request.
pub type Attempt<T> = Result<T, Failure>;

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    Refused(Refusal),
    /// The object is another one now.
    Changed(String),
    /// The server does not answer as HTTP says: it cannot be read in ranges.
    Unusable(String),
    /// No answer, or a broken one.
    Broken(String),
    /// There are no credentials.
    Anonymous,
}

impl Failure {
    /// The failure behind an error of a store.
    pub fn of(error: &object_store::Error) -> Self {
        let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
        while let Some(inner) = cause {
            if let Some(refusal) = inner.downcast_ref::<Refusal>() {
                return match refusal.status {
                    412 => Self::Changed("its ETag is another".to_owned()),
                    416 => Self::Changed("it is shorter".to_owned()),
                    _ => Self::Refused(refusal.clone()),
                };
            }
            if let Some(error) = inner.downcast_ref::<HttpError>()
                && !matches!(error.source(), Some(source) if source.is::<Refusal>())
            {
                return Self::Broken(broken(error.kind()).to_owned());
            }
            cause = inner.source();
        }
        let text = error.to_string();
        if text.contains("non-partial response") {
            return Self::Unusable("the server does not answer ranges".to_owned());
        }
        if text.contains("Content-Range")
            || text.contains("CONTENT_RANGE")
            || text.contains("Requested")
        {
            return Self::Broken("an answer for another range".to_owned());
        }
        if text.contains("credential") || text.contains("token") {
            return Self::Anonymous;
        }
        Self::Broken("an answer that cannot be understood".to_owned())
    }

    /// Whether the same request may succeed a moment later.
    pub fn passes(&self) -> bool {
        match self {
            Self::Broken(_) => true,
            Self::Refused(refusal) => matches!(refusal.status, 408 | 425 | 429 | 500..),
            Self::Changed(_) | Self::Unusable(_) | Self::Anonymous => false,
        }
    }

    /// Whether there is no such object.
    pub fn is_absence(&self) -> bool {
        matches!(self, Self::Refused(Refusal { status: 404, code, .. }) if code != "NoSuchBucket" && code != "ContainerNotFound")
    }

    /// The error of a read or a listing at `path`.
    pub fn at(self, path: &Path) -> Error {
        let io = |kind, reason: String| Error::io(path, io::Error::new(kind, reason));
        match self {
            Self::Changed(what) => Error::Changed {
                file: path.to_owned(),
                what,
            },
            Self::Refused(refusal) => {
                let kind = match refusal.status {
                    401 | 403 => io::ErrorKind::PermissionDenied,
                    404 => io::ErrorKind::NotFound,
                    _ => io::ErrorKind::Other,
                };
                io(kind, refused(&refusal))
            }
            Self::Unusable(reason) => io(
                io::ErrorKind::Unsupported,
                format!("{reason}; put it on a server that does, or copy it to this machine"),
            ),
            Self::Broken(reason) => io(
                io::ErrorKind::TimedOut,
                format!("{reason}, and so was each request after it; look at the network, or try again later"),
            ),
            Self::Anonymous => io(
                io::ErrorKind::PermissionDenied,
                "no credentials were found; set those of the store, or its SKIP_SIGNATURE=true for a public one (docs/remote.md)".to_owned(),
            ),
        }
    }
}

fn broken(kind: HttpErrorKind) -> &'static str {
    match kind {
        HttpErrorKind::Connect => "no connection to the server",
        HttpErrorKind::Timeout => "no answer in time",
        HttpErrorKind::Interrupted | HttpErrorKind::Request => "a connection that broke",
        _ => "an answer that broke off",
    }
}

fn refused(refusal: &Refusal) -> String {
    let Refusal {
        status,
        code,
        region,
    } = refusal;
    match (status, &**code, region) {
        (_, "NoSuchBucket" | "ContainerNotFound", _) => {
            "there is no such bucket; name another, or set the endpoint of its store".to_owned()
        }
        (301 | 307 | 400, _, Some(region)) => {
            format!("the bucket lies in another region; set AWS_REGION={region}")
        }
        (401, ..) => format!(
            "the server wants other credentials ({refusal}); set the token or the keys of the store (docs/remote.md)"
        ),
        (403, ..) => format!(
            "the server refuses it ({refusal}); use credentials that may read it (docs/remote.md)"
        ),
        (404, ..) => "there is no such object; name another".to_owned(),
        _ => format!("the server answers {refusal}; look at the store, or try again later"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(status: u16, code: &str) -> Failure {
        Failure::Refused(Refusal {
            status,
            code: code.to_owned(),
            region: None,
        })
    }

    #[test]
    fn what_passes_is_tried_again_and_nothing_else() {
        for status in [408, 429, 500, 502, 503, 504] {
            assert!(refusal(status, "SlowDown").passes(), "{status}");
        }
        for status in [400, 401, 403, 404] {
            assert!(!refusal(status, "").passes(), "{status}");
        }
        assert!(refusal(404, "NoSuchKey").is_absence());
        assert!(!refusal(404, "NoSuchBucket").is_absence());
        assert!(!Failure::Changed(String::new()).passes());
    }

    #[test]
    fn errors_name_the_object_and_what_to_do() {
        let line = refusal(403, "AccessDenied")
            .at(Path::new("s3://b/k"))
            .to_string();
        assert!(
            line.starts_with("s3://b/k: the server refuses it (403 AccessDenied); "),
            "{line}"
        );
    }
}
