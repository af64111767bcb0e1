//! S3, as far as its clients need it to list and read the bucket `view`, by path-style addresses.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use hyper::http::request::Parts;
use hyper::{Method, StatusCode};

use super::answer::{Answer, document, empty, file, iso, with};
use super::library::{Item, Library, Snapshot, modified};
use super::shared::{Shared, waiting};
use crate::error::Result;

/// The one bucket.
pub const BUCKET: &str = "view";

const XML: &str = "application/xml";

/// Most keys of one listing, as S3 has it.
const MOST: usize = 1000;

const NAMESPACE: &str = "http://s3.amazonaws.com/doc/2006-03-01/";

/// Answers a request.
pub async fn answer(shared: &Arc<Shared>, request: &Parts, names: &[&str]) -> Answer {
    if !matches!(request.method, Method::GET | Method::HEAD) {
        let message = "The bucket is read only";
        return refused(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message);
    }
    let query: BTreeMap<String, String> =
        url::form_urlencoded::parse(request.uri.query().unwrap_or_default().as_bytes())
            .into_owned()
            .collect();
    match names {
        [] => buckets(),
        [BUCKET] if query.contains_key("location") => located(),
        [BUCKET] if request.method == Method::HEAD => empty(StatusCode::OK),
        [BUCKET] => {
            let library = shared.clone();
            match waiting(move || keys(&library.library, &Listing::of(&query))).await {
                Ok(text) => document(StatusCode::OK, XML, text),
                Err(error) => failed(&error),
            }
        }
        [BUCKET, key @ ..] => object(shared, request, &key.join("/")).await,
        _ => refused(
            StatusCode::NOT_FOUND,
            "NoSuchBucket",
            "The bucket is called view",
        ),
    }
}

async fn object(shared: &Arc<Shared>, request: &Parts, key: &str) -> Answer {
    let (library, wanted) = (shared.clone(), key.to_owned());
    match waiting(move || find(&library.library, &wanted)).await {
        Ok(Some(item)) => {
            let answered = file(&shared.reader, &item, request).await;
            let answered = answered.unwrap_or_else(|error| failed(&error));
            match answered.status() {
                StatusCode::PRECONDITION_FAILED if request.method == Method::GET => refused(
                    StatusCode::PRECONDITION_FAILED,
                    "PreconditionFailed",
                    "The ETag is another",
                ),
                _ => answered,
            }
        }
        Ok(None) if request.method == Method::HEAD => empty(StatusCode::NOT_FOUND),
        Ok(None) => refused(StatusCode::NOT_FOUND, "NoSuchKey", "There is no such key"),
        Err(error) => failed(&error),
    }
}

/// Finds a key. In a run the first name is that of a save, or `latest`.
fn find(library: &Library, key: &str) -> Result<Option<Item>> {
    let (snapshot, path) = match (library, key.split_once('/')) {
        (Library::Checkpoint(snapshot), _) => (Some(snapshot.clone()), key),
        (Library::Run { .. }, Some((save, path))) => (library.revision(save)?, path),
        (Library::Run { .. }, None) => (None, key),
    };
    Ok(snapshot.and_then(|snapshot| snapshot.files.get(path).cloned()))
}

/// The terms of a listing.
struct Listing {
    prefix: String,
    delimiter: Option<String>,
    /// Keys up to this one were listed before.
    after: String,
    most: usize,
    is_second: bool,
}

impl Listing {
    fn of(query: &BTreeMap<String, String>) -> Self {
        let get = |name: &str| query.get(name).cloned();
        let after = ["continuation-token", "start-after", "marker"];
        let most = get("max-keys").and_then(|most| most.parse().ok());
        Self {
            prefix: get("prefix").unwrap_or_default(),
            delimiter: get("delimiter").filter(|delimiter| !delimiter.is_empty()),
            after: after.into_iter().find_map(get).unwrap_or_default(),
            most: most.unwrap_or(MOST).min(MOST),
            is_second: query.contains_key("list-type"),
        }
    }

    /// The prefix that stands for all keys that have it, if `key` is one of several.
    fn common(&self, key: &str) -> Option<String> {
        let delimiter = self.delimiter.as_deref()?;
        let rest = key.strip_prefix(&self.prefix)?;
        let at = rest.find(delimiter)?;
        Some(format!(
            "{}{}",
            self.prefix,
            rest.get(..at + delimiter.len())?
        ))
    }
}

/// A line of a listing.
enum Line {
    Key(String, Item),
    Common(String),
}

impl Line {
    fn name(&self) -> &str {
        match self {
            Self::Key(name, _) | Self::Common(name) => name,
        }
    }
}

/// The lines of a listing, sorted. Saves of a run are not opened where their names are enough.
fn lines(library: &Library, listing: &Listing) -> Result<Vec<Line>> {
    let mut lines = BTreeMap::new();
    let mut add = |start: &str, snapshot: &Snapshot| {
        for (path, item) in &snapshot.files {
            let key = format!("{start}{path}");
            if !key.starts_with(&listing.prefix) {
                continue;
            }
            match listing.common(&key) {
                Some(common) => lines.insert(common.clone(), Line::Common(common)),
                None => lines.insert(key.clone(), Line::Key(key, item.clone())),
            };
        }
    };
    if let Library::Checkpoint(snapshot) = library {
        add("", snapshot);
        return Ok(lines.into_values().collect());
    }
    let mut commons = Vec::new();
    for save in library.saves() {
        let start = format!("{save}/");
        let is_wanted = start.starts_with(&listing.prefix) || listing.prefix.starts_with(&start);
        let common = listing.common(&start).filter(|common| *common == start);
        match common {
            _ if !is_wanted => {}
            Some(common) if start.starts_with(&listing.prefix) => commons.push(common),
            _ => {
                if let Some(snapshot) = library.save(&save)? {
                    add(&start, &snapshot);
                }
            }
        }
    }
    let commons = commons
        .into_iter()
        .map(|common| (common.clone(), Line::Common(common)));
    lines.extend(commons);
    Ok(lines.into_values().collect())
}

fn keys(library: &Library, listing: &Listing) -> Result<String> {
    let mut lines = lines(library, listing)?;
    lines.retain(|line| line.name() > &*listing.after);
    let is_truncated = lines.len() > listing.most;
    lines.truncate(listing.most);
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><ListBucketResult xmlns=\"{NAMESPACE}\">"
    );
    let mut tag = |name: &str, value: &str| {
        // Writing to memory cannot fail.
        let _ = write!(text, "<{name}>{}</{name}>", escaped(value));
    };
    tag("Name", BUCKET);
    tag("Prefix", &listing.prefix);
    tag("MaxKeys", &listing.most.to_string());
    tag("IsTruncated", &is_truncated.to_string());
    if let Some(delimiter) = &listing.delimiter {
        tag("Delimiter", delimiter);
    }
    if listing.is_second {
        tag("KeyCount", &lines.len().to_string());
    }
    if let Some(last) = lines.last().filter(|_| is_truncated) {
        let next = match listing.is_second {
            true => "NextContinuationToken",
            false => "NextMarker",
        };
        tag(next, last.name());
    }
    for line in &lines {
        let _ = match line {
            Line::Common(name) => write!(
                text,
                "<CommonPrefixes><Prefix>{}</Prefix></CommonPrefixes>",
                escaped(name)
            ),
            Line::Key(name, item) => write!(
                text,
                "<Contents><Key>{}</Key><LastModified>{}</LastModified><ETag>{}</ETag><Size>{}</Size><StorageClass>STANDARD</StorageClass></Contents>",
                escaped(name),
                iso(modified(item)),
                escaped(&item.etag),
                item.file.size()
            ),
        };
    }
    Ok(text + "</ListBucketResult>")
}

fn buckets() -> Answer {
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><ListAllMyBucketsResult xmlns=\"{NAMESPACE}\"><Owner><ID>ckptfs</ID></Owner><Buckets><Bucket><Name>{BUCKET}</Name><CreationDate>1970-01-01T00:00:00.000Z</CreationDate></Bucket></Buckets></ListAllMyBucketsResult>"
    );
    document(StatusCode::OK, XML, text)
}

fn located() -> Answer {
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><LocationConstraint xmlns=\"{NAMESPACE}\"></LocationConstraint>"
    );
    document(StatusCode::OK, XML, text)
}

fn failed(error: &crate::error::Error) -> Answer {
    tracing::warn!("{error}");
    refused(
        StatusCode::BAD_GATEWAY,
        "InternalError",
        "The source cannot be read",
    )
}

/// An error as S3's clients read it.
pub fn refused(status: StatusCode, code: &str, message: &str) -> Answer {
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
    );
    with(document(status, XML, text), "x-amz-error-code", code)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_below_a_delimiter_have_one_prefix() {
        let listing = |prefix: &str| Listing {
            prefix: prefix.to_owned(),
            delimiter: Some("/".to_owned()),
            after: String::new(),
            most: MOST,
            is_second: true,
        };
        assert_eq!(listing("").common("a/b/c").as_deref(), Some("a/"));
        assert_eq!(listing("a/").common("a/b/c").as_deref(), Some("a/b/"));
        assert_eq!(listing("a/").common("a/b"), None);
        assert_eq!(escaped("<\"&\">"), "&lt;&quot;&amp;&quot;&gt;");
    }
}
