//! The HTTP client under every store: its time limits, and answers that are no success turned into errors with their status.

use std::time::Duration;

use async_trait::async_trait;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
    ReqwestConnector,
};
use object_store::{BackoffConfig, ClientOptions, Result, RetryConfig};

use super::failure::Refusal;

/// How long a server may be silent, in the middle of an answer too.
pub const SILENCE: Duration = Duration::from_secs(5);

/// Longest body of an error of which the code is taken.
const LONGEST: usize = 64 << 10;

/// Time limits of every connection. There is none for a whole answer: a long one may take its time.
pub fn options() -> ClientOptions {
    ClientOptions::new()
        .with_timeout_disabled()
        .with_connect_timeout(SILENCE)
        .with_read_timeout(SILENCE)
}

/// No retries below ours: each answer is compared with the version of the object.
pub fn no_retries() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig::default(),
        max_retries: 0,
        retry_timeout: Duration::ZERO,
    }
}

#[derive(Debug, Default)]
pub struct Connector;

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> Result<HttpClient> {
        let plain = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Judging(plain)))
    }
}

#[derive(Debug)]
struct Judging(HttpClient);

#[async_trait]
impl HttpService for Judging {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let is_read = matches!(request.method().as_str(), "GET" | "HEAD");
        let answer = self.0.execute(request).await?;
        match answer.status().as_u16() {
            status @ 300.. if is_read => {
                let refusal = refusal(status, answer).await;
                Err(HttpError::new(HttpErrorKind::Unknown, refusal))
            }
            _ => Ok(answer),
        }
    }
}

async fn refusal(status: u16, answer: HttpResponse) -> Refusal {
    let region = answer.headers().get("x-amz-bucket-region");
    let region = region.and_then(|region| region.to_str().ok());
    let region = region.filter(|region| is_word(region)).map(str::to_owned);
    let length = answer.headers().get("content-length");
    let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
    let code = match length {
        Some(1..=LONGEST) => answer.into_body().bytes().await.ok(),
        _ => None,
    };
    let code = code.and_then(|body| code_in(&String::from_utf8_lossy(&body)));
    Refusal {
        status,
        code: code.unwrap_or_default(),
        region,
    }
}

/// The text of `<Code>` in an error of S3, GCS or Azure. The rest of such an error may hold key ids.
fn code_in(body: &str) -> Option<String> {
    let (_, rest) = body.split_once("<Code>")?;
    let (code, _) = rest.split_once("</Code>")?;
    is_word(code).then(|| code.to_owned())
}

fn is_word(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    (1..=64).contains(&text.len()) && text.bytes().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_code_of_an_error_is_taken() {
        let body =
            "<Error><Code>InvalidAccessKeyId</Code><AWSAccessKeyId>AKIA</AWSAccessKeyId></Error>";
        assert_eq!(code_in(body).as_deref(), Some("InvalidAccessKeyId"));
        assert_eq!(code_in("<Code>a key=secret</Code>"), None);
        assert_eq!(code_in("no"), None);
    }
}
