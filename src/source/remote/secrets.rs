//! Queries and passwords of URLs, kept apart from the paths that messages, logs and the mount table show.

use std::collections::HashMap;
use std::fmt::{self, Debug, Formatter};
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, PoisonError};

/// The secret parts of a URL: `user:password` and the query.
#[derive(Clone, PartialEq, Eq, Default, Hash)]
pub struct Secret {
    pub user: Option<String>,
    pub query: Option<String>,
}

impl Debug for Secret {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

static KEPT: LazyLock<Mutex<HashMap<PathBuf, Secret>>> = LazyLock::new(Mutex::default);

/// Splits the secret parts off a URL. Only the URLs of HTTP have any: in a key of a bucket, `?` and `@` are plain characters.
pub fn taken_off(text: &str) -> (String, Option<Secret>) {
    let Some((scheme, rest)) = text.split_once("://") else {
        return (text.to_owned(), None);
    };
    if !matches!(&*scheme.to_ascii_lowercase(), "http" | "https") {
        return (text.to_owned(), None);
    }
    let rest = rest.split_once('#').map_or(rest, |(rest, _)| rest);
    let (rest, query) = match rest.split_once('?') {
        Some((rest, query)) => (rest, Some(query.to_owned())),
        None => (rest, None),
    };
    let (authority, key) = rest.split_once('/').unwrap_or((rest, ""));
    let (user, host) = match authority.rsplit_once('@') {
        Some((user, host)) => (Some(user.to_owned()), host),
        None => (None, authority),
    };
    let secret = Secret { user, query };
    let secret = (secret != Secret::default()).then_some(secret);
    (format!("{scheme}://{host}/{key}"), secret)
}

/// Keeps the secret for `path` and all below it.
pub fn keep(path: &Path, secret: Secret) {
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    kept.insert(path.to_owned(), secret);
}

/// The secret for `path`: that of the nearest path above.
pub fn of(path: &Path) -> Secret {
    let kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    let mut above = path.ancestors();
    above
        .find_map(|path| kept.get(path).cloned())
        .unwrap_or_default()
}
