//! The server: its connections, their limits, and its end.

use std::io;
use std::net::{SocketAddr, TcpListener as Bound};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

use super::answer::{Answer, empty};
use super::guard::{Denied, Guard};
use super::library::Library;
use super::shared::Shared;
use super::{hub, s3};
use crate::error::{Error, Result};
use crate::read::Reader;

/// Connections at once; further ones wait to be accepted.
const CONNECTIONS: usize = 256;

/// How long a client may take to send a request, or say nothing between two.
const IDLE: Duration = Duration::from_secs(60);

/// Bytes of the head of a request.
const HEAD: usize = 64 << 10;

/// Bytes of the body of a request.
const BODY: usize = 1 << 20;

/// How long requests under way are answered after the end was asked for.
const GRACE: Duration = Duration::from_secs(5);

/// How a view is served.
#[derive(Debug, Clone)]
pub struct Options {
    pub listen: SocketAddr,
    /// The token that clients must show, as a token of the hub or as a key id of S3.
    pub token: Option<String>,
    /// The one name of the repository; without it any name is taken.
    pub repository: Option<String>,
}

/// A server that answers. It ends when it is dropped.
pub struct Server {
    address: SocketAddr,
    end: watch::Sender<bool>,
    runtime: Handle,
    connections: Arc<Semaphore>,
}

impl Server {
    /// Binds the address and answers from then on.
    ///
    /// # Errors
    /// When the address cannot be bound, or others could reach it and no token is set.
    pub fn start(library: Library, options: &Options, runtime: &Handle) -> Result<Self> {
        let Options {
            listen,
            token,
            repository,
        } = options.clone();
        let refuse = |reason: String| Error::mount(listen.to_string().as_ref(), reason);
        if !listen.ip().is_loopback() && token.is_none() {
            let reason = "can be reached by other machines; set a --token, or listen on 127.0.0.1";
            return Err(refuse(reason.to_owned()));
        }
        let bound = bind(listen, runtime);
        let (address, listener) =
            bound.map_err(|error| refuse(format!("{error}; name another address")))?;
        let (end, ended) = watch::channel(false);
        let connections = Arc::new(Semaphore::new(CONNECTIONS));
        let shared = Arc::new(Shared {
            library,
            reader: Reader::default(),
            repository,
            guard: Guard::new(&address, token),
        });
        runtime.spawn(accept(listener, shared, connections.clone(), ended));
        Ok(Self {
            address,
            end,
            runtime: runtime.clone(),
            connections,
        })
    }

    /// The address with the port that was found.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more connections, and waits for the requests under way, but not for long.
    pub fn stop(self) {
        self.end.send(true).ok();
        let all = u32::try_from(CONNECTIONS).unwrap_or(u32::MAX);
        let (sender, receiver) = std::sync::mpsc::channel();
        let connections = self.connections.clone();
        self.runtime.spawn(async move {
            let finished = timeout(GRACE, connections.acquire_many(all)).await.is_ok();
            sender.send(finished).ok();
        });
        if let Ok(false) = receiver.recv() {
            tracing::warn!(
                "{}: requests were still under way when ckptfs ended",
                self.address
            );
        }
    }
}

fn bind(listen: SocketAddr, runtime: &Handle) -> io::Result<(SocketAddr, TcpListener)> {
    let bound = Bound::bind(listen)?;
    bound.set_nonblocking(true)?;
    let address = bound.local_addr()?;
    let _inside = runtime.enter();
    Ok((address, TcpListener::from_std(bound)?))
}

async fn accept(
    listener: TcpListener,
    shared: Arc<Shared>,
    connections: Arc<Semaphore>,
    mut ended: watch::Receiver<bool>,
) {
    loop {
        let Ok(permit) = connections.clone().acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = ended.changed() => return,
        };
        let Ok((stream, _)) = accepted else {
            // No descriptor is free: one will be when a connection ends.
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (shared, ended) = (shared.clone(), ended.clone());
        tokio::spawn(async move {
            converse(stream, shared, ended).await;
            drop(permit);
        });
    }
}

/// Answers the requests of a connection, one after the other.
async fn converse(stream: TcpStream, shared: Arc<Shared>, mut ended: watch::Receiver<bool>) {
    stream.set_nodelay(true).ok();
    let service = service_fn(move |request| {
        let shared = shared.clone();
        async move { Ok::<_, std::convert::Infallible>(answer(&shared, request).await) }
    });
    let mut server = http1::Builder::new();
    server
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .max_buf_size(HEAD)
        .half_close(true);
    let connection = server.serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = ended.changed() => {}
    }
    connection.as_mut().graceful_shutdown();
    connection.await.ok();
}

async fn answer(shared: &Arc<Shared>, request: Request<Incoming>) -> Answer {
    let (parts, body) = request.into_parts();
    let authority = parts
        .uri
        .authority()
        .map(hyper::http::uri::Authority::as_str);
    let path = percent_decoded(parts.uri.path());
    let Some(path) = path.filter(|path| !path.contains('\0')) else {
        return empty(StatusCode::BAD_REQUEST);
    };
    let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
    let is_buckets = matches!(names.first(), None | Some(&s3::BUCKET));
    match shared.guard.check(&parts.headers, authority) {
        Err(Denied::Host) => return empty(StatusCode::MISDIRECTED_REQUEST),
        Err(Denied::Token) if is_buckets => {
            return s3::refused(
                StatusCode::FORBIDDEN,
                "AccessDenied",
                "The key id is not the token",
            );
        }
        Err(Denied::Token) => {
            return hub::refused(StatusCode::UNAUTHORIZED, "", "The token is another");
        }
        Ok(()) => {}
    }
    if is_buckets {
        return s3::answer(shared, &parts, &names).await;
    }
    match parts.method {
        Method::GET | Method::HEAD => hub::answer(shared, &parts, &names, &[]).await,
        Method::POST if hub::is_hubs(&names) => posted(shared, &parts, &names, body).await,
        _ => hub::refused(
            StatusCode::METHOD_NOT_ALLOWED,
            "",
            "The repository is read only",
        ),
    }
}

async fn posted(shared: &Arc<Shared>, parts: &Parts, names: &[&str], body: Incoming) -> Answer {
    let body = timeout(IDLE, Limited::new(body, BODY).collect()).await;
    match body {
        Ok(Ok(body)) => hub::answer(shared, parts, names, &body.to_bytes()).await,
        _ => empty(StatusCode::PAYLOAD_TOO_LARGE),
    }
}

fn percent_decoded(path: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        match first {
            b'%' => {
                let digits = std::str::from_utf8(after.get(..2)?).ok()?;
                bytes.push(u8::from_str_radix(digits, 16).ok()?);
                rest = after.get(2..)?;
            }
            byte => bytes.push(*byte),
        }
    }
    String::from_utf8(bytes).ok()
}
