//! Answers that both protocols give.

use std::sync::Arc;
use std::time::SystemTime;

use hyper::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName, HeaderValue,
    IF_MATCH, IF_NONE_MATCH, LAST_MODIFIED, RANGE,
};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};

use super::body::Content;
use super::library::Item;
use super::range::{Part, part};
use crate::error::Result;
use crate::read::Reader;

pub type Answer = Response<Content>;

/// A document.
pub fn document(status: StatusCode, kind: &'static str, body: String) -> Answer {
    let mut answer = Response::new(Content::ready(body));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

/// An answer without a body.
pub fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(Content::ready(""));
    *answer.status_mut() = status;
    answer
}

/// Adds a header, unless the text cannot be one.
pub fn with(mut answer: Answer, name: &'static str, value: &str) -> Answer {
    if let Ok(value) = HeaderValue::from_str(value) {
        answer
            .headers_mut()
            .insert(HeaderName::from_static(name), value);
    }
    answer
}

/// A file, or the range of it that is asked for, if the conditions of the request hold.
///
/// # Errors
/// When the first bytes cannot be produced.
pub async fn file(reader: &Reader, item: &Item, request: &Parts) -> Result<Answer> {
    let header = |name| {
        request
            .headers
            .get(name)
            .and_then(|value: &HeaderValue| value.to_str().ok())
    };
    let names = |list: &str| {
        let mut tags = list.split(',').map(str::trim);
        tags.any(|tag| tag == "*" || tag.trim_matches('"') == item.etag.trim_matches('"'))
    };
    if header(IF_MATCH).is_some_and(|list| !names(list)) {
        return Ok(empty(StatusCode::PRECONDITION_FAILED));
    }
    if header(IF_NONE_MATCH).is_some_and(names) {
        return Ok(described(empty(StatusCode::NOT_MODIFIED), item));
    }
    let size = item.file.size();
    let (status, range) = match part(header(RANGE), size) {
        Part::Whole => (StatusCode::OK, 0..size),
        Part::Range(range) => (StatusCode::PARTIAL_CONTENT, range),
        Part::Unsatisfiable => {
            let answer = empty(StatusCode::RANGE_NOT_SATISFIABLE);
            return Ok(with(answer, CONTENT_RANGE_NAME, &format!("bytes */{size}")));
        }
    };
    let length = range.end - range.start;
    let body = match request.method == Method::HEAD {
        true => Content::ready(""),
        false => Content::of(reader, Arc::clone(&item.file), range.clone()).await?,
    };
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    if status == StatusCode::PARTIAL_CONTENT
        && let Ok(value) =
            HeaderValue::from_str(&format!("bytes {}-{}/{size}", range.start, range.end - 1))
    {
        headers.insert(CONTENT_RANGE, value);
    }
    Ok(described(answer, item))
}

const CONTENT_RANGE_NAME: &str = "content-range";

fn described(mut answer: Answer, item: &Item) -> Answer {
    let headers = answer.headers_mut();
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if let Ok(etag) = HeaderValue::from_str(&item.etag) {
        headers.insert(ETAG, etag);
    }
    let modified = super::library::modified(item);
    if let Ok(modified) = HeaderValue::from_str(&date(modified)) {
        headers.insert(LAST_MODIFIED, modified);
    }
    answer
}

/// A time as HTTP writes it.
pub fn date(time: SystemTime) -> String {
    httpdate::fmt_http_date(time)
}

/// A time as JSON and XML write it.
pub fn iso(time: SystemTime) -> String {
    let time = chrono::DateTime::<chrono::Utc>::from(time);
    time.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}
