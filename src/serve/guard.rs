//! The requests that are let in: those for this machine by its own names, and those with the token.

use std::net::SocketAddr;

use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HOST};

/// The rule by which requests are let in.
#[derive(Debug, Clone)]
pub struct Guard {
    is_loopback: bool,
    token: Option<String>,
}

/// Why a request is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// A page in a browser may send requests here under a name of its own.
    Host,
    Token,
}

impl Guard {
    pub fn new(address: &SocketAddr, token: Option<String>) -> Self {
        Self {
            is_loopback: address.ip().is_loopback(),
            token,
        }
    }

    /// `authority` is the host of an absolute target.
    pub fn check(&self, headers: &HeaderMap, authority: Option<&str>) -> Result<(), Denied> {
        let host = headers.get(HOST).and_then(|host| host.to_str().ok());
        let mut hosts = host.into_iter().chain(authority);
        if self.is_loopback && !hosts.all(is_own) {
            return Err(Denied::Host);
        }
        match &self.token {
            Some(token) if !shown(headers).is_some_and(|shown| is_same(shown, token)) => {
                Err(Denied::Token)
            }
            _ => Ok(()),
        }
    }
}

fn is_own(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    let is_loopback = |name: &str| {
        let address = name.parse::<std::net::IpAddr>();
        address.is_ok_and(|address| address.is_loopback())
    };
    name.eq_ignore_ascii_case("localhost") || is_loopback(name)
}

/// The token of a request to the hub, or the key id of one to S3.
fn shown(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    if let Some(token) = value.strip_prefix("Bearer ") {
        return Some(token.trim());
    }
    let (_, rest) = value.split_once("Credential=")?;
    rest.split('/').next()
}

/// Compares in a time that tells nothing of where the two differ.
fn is_same(a: &str, b: &str) -> bool {
    let differences = a.bytes().zip(b.bytes()).map(|(a, b)| a ^ b);
    a.len() == b.len() && differences.fold(0, |all, one| all | one) == 0
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn headers(host: &'static str, authorization: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static(host));
        headers.insert(AUTHORIZATION, HeaderValue::from_static(authorization));
        headers
    }

    #[test]
    fn other_names_of_this_machine_are_turned_away() {
        let guard = Guard::new(&"127.0.0.1:1".parse().unwrap(), None);
        for host in ["127.0.0.1:8000", "localhost", "LocalHost:1", "[::1]:8000"] {
            assert_eq!(guard.check(&headers(host, ""), None), Ok(()), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:8000",
            "10.0.0.1:8000",
            "localhost.evil",
        ] {
            assert_eq!(
                guard.check(&headers(host, ""), None),
                Err(Denied::Host),
                "{host}"
            );
        }
        let own = headers("localhost", "");
        assert_eq!(guard.check(&own, Some("evil.example")), Err(Denied::Host));
    }

    #[test]
    fn tokens_come_as_bearer_or_as_key_id() {
        let guard = Guard::new(&"10.0.0.1:1".parse().unwrap(), Some("t0k".to_owned()));
        let check = |authorization| guard.check(&headers("any", authorization), None);
        assert_eq!(check("Bearer t0k"), Ok(()));
        assert_eq!(
            check("AWS4-HMAC-SHA256 Credential=t0k/2026/us-east-1/s3/aws4_request, Signature=0"),
            Ok(())
        );
        for wrong in ["", "Bearer t0", "Bearer t0kk", "Basic t0k"] {
            assert_eq!(check(wrong), Err(Denied::Token), "{wrong}");
        }
    }
}
