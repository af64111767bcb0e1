//! A small store of the tests: a folder as a bucket of S3 and as a web server, which counts requests and fails as it is told.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// Faults of some requests for ranges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A status instead of bytes.
    Status(u16),
    /// The connection ends after half of the bytes.
    Truncate,
    /// No more bytes come after half of them.
    Stall,
    /// The bytes of another range.
    Shift,
    /// All bytes as if no range were asked for.
    Whole,
    /// Another ETag.
    Change,
    /// The right ETag, of an object with another size.
    Grow,
}

/// A fault, and how often: on each request whose number it divides.
pub type Plan = Option<(Fault, u64)>;

pub struct Store {
    pub address: SocketAddr,
    state: Arc<State>,
}

struct State {
    root: PathBuf,
    plan: Mutex<Plan>,
    requests: AtomicU64,
    ranges: AtomicU64,
    bytes: AtomicU64,
    ignores_conditions: Mutex<bool>,
}

impl Store {
    /// Serves the folders in `root` as buckets.
    pub fn of(root: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            root: root.to_owned(),
            plan: Mutex::new(None),
            requests: AtomicU64::new(0),
            ranges: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            ignores_conditions: Mutex::new(false),
        });
        let shared = state.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = shared.clone();
                thread::spawn(move || state.converse(stream));
            }
        });
        Self { address, state }
    }

    pub fn fail(&self, plan: Plan) {
        *self.state.plan.lock().unwrap() = plan;
    }

    /// Answers as servers do that know no If-Match.
    pub fn ignore_conditions(&self) {
        *self.state.ignores_conditions.lock().unwrap() = true;
    }

    pub fn requests(&self) -> u64 {
        self.state.requests.load(Ordering::SeqCst)
    }

    /// Bytes of bodies of ranges.
    pub fn bytes(&self) -> u64 {
        self.state.bytes.load(Ordering::SeqCst)
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// The head of a request.
struct Head {
    method: String,
    path: String,
    query: String,
    headers: Vec<(String, String)>,
}

impl Head {
    fn read(reader: &mut impl BufRead) -> Option<Self> {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let mut words = line.split_whitespace();
        let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let (path, query) = (decoded(path), query.to_owned());
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            match line.trim_end().split_once(':') {
                Some((name, value)) => {
                    headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
                }
                None => break,
            }
        }
        Some(Self {
            method,
            path,
            query,
            headers,
        })
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(own, _)| own == name);
        found.next().map(|(_, value)| value.as_str())
    }

    fn field(&self, name: &str) -> Option<String> {
        let mut fields = self
            .query
            .split('&')
            .filter_map(|field| field.split_once('='));
        fields
            .find(|(own, _)| *own == name)
            .map(|(_, value)| decoded(value))
    }
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        match (first, after) {
            (b'%', [a, b, after @ ..]) => {
                let digits = [*a, *b];
                let digits = std::str::from_utf8(&digits).unwrap();
                bytes.push(u8::from_str_radix(digits, 16).unwrap());
                rest = after;
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).unwrap()
}

impl State {
    fn converse(&self, stream: TcpStream) {
        stream.set_nodelay(true).unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        while let Some(head) = Head::read(&mut reader) {
            self.requests.fetch_add(1, Ordering::SeqCst);
            if self.answer(&head, &stream).is_none() {
                return;
            }
        }
    }

    /// Answers a request. `None` ends the connection.
    fn answer(&self, head: &Head, mut stream: &TcpStream) -> Option<()> {
        let (bucket, key) = head.path[1..]
            .split_once('/')
            .unwrap_or((&head.path[1..], ""));
        if key.is_empty() && head.query.contains("list-type") {
            let listed = self.list(bucket, head);
            return say(stream, "200 OK", &[], listed.as_bytes(), head);
        }
        let path = self.root.join(bucket).join(key);
        let file = File::open(&path).ok().filter(|_| path.is_file());
        let Some(mut file) = file else {
            let body = b"<Error><Code>NoSuchKey</Code></Error>";
            return say(stream, "404 Not Found", &[], body, head);
        };
        let metadata = file.metadata().unwrap();
        let (size, mut etag) = (metadata.len(), etag_of(&metadata));
        let fault = head.header("range").and_then(|_| self.next_fault());
        if let Some(Fault::Status(status)) = fault {
            let body = b"<Error><Code>SlowDown</Code></Error>";
            return say(stream, &format!("{status} Injected"), &[], body, head);
        }
        if fault == Some(Fault::Change) {
            etag = "\"another\"".to_owned();
        }
        let is_held = !*self.ignores_conditions.lock().unwrap();
        if is_held && head.header("if-match").is_some_and(|wanted| wanted != etag) {
            return say(stream, "412 Precondition Failed", &[], b"", head);
        }
        let range = head
            .header("range")
            .and_then(|range| range.strip_prefix("bytes="));
        let range = range.and_then(|range| range.split_once('-'));
        let (mut start, end, status) = match range {
            Some((first, last)) if fault != Some(Fault::Whole) => {
                let first: u64 = first.parse().unwrap();
                let last = last.parse().map_or(size, |last: u64| (last + 1).min(size));
                (first, last, "206 Partial Content")
            }
            _ => (0, size, "200 OK"),
        };
        if start >= size {
            return say(stream, "416 Range Not Satisfiable", &[], b"", head);
        }
        let length = end - start;
        if fault == Some(Fault::Shift) {
            start = start.saturating_sub(1);
        }
        let told = if fault == Some(Fault::Grow) {
            size + 1
        } else {
            size
        };
        let mut text = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nETag: {etag}\r\n");
        text += "Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n";
        if status.starts_with("206") {
            let last = start + length - 1;
            text += &format!("Content-Range: bytes {start}-{last}/{told}\r\n");
        }
        stream.write_all(format!("{text}\r\n").as_bytes()).ok()?;
        if head.method == "HEAD" {
            return Some(());
        }
        let sent = match fault {
            Some(Fault::Truncate | Fault::Stall) => length / 2,
            _ => length,
        };
        file.seek(SeekFrom::Start(start)).unwrap();
        let mut body = Vec::new();
        file.take(sent).read_to_end(&mut body).unwrap();
        self.bytes.fetch_add(body.len() as u64, Ordering::SeqCst);
        stream.write_all(&body).ok()?;
        if fault == Some(Fault::Stall) {
            thread::sleep(Duration::from_secs(30));
        }
        (sent == length).then_some(())
    }

    fn next_fault(&self) -> Option<Fault> {
        let number = self.ranges.fetch_add(1, Ordering::SeqCst) + 1;
        let plan = *self.plan.lock().unwrap();
        plan.filter(|(_, every)| number.is_multiple_of(*every))
            .map(|(fault, _)| fault)
    }

    fn list(&self, bucket: &str, head: &Head) -> String {
        let prefix = head.field("prefix").unwrap_or_default();
        let base = self.root.join(bucket);
        let (mut keys, mut folders) = (Vec::new(), vec![base.clone()]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                match entry.path().is_dir() {
                    true => folders.push(entry.path()),
                    false => keys.push(entry.path()),
                }
            }
        }
        keys.sort();
        let (mut text, mut common) = (String::new(), BTreeSet::new());
        for path in keys {
            let key = path
                .strip_prefix(&base)
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned();
            let Some(rest) = key.strip_prefix(&prefix) else {
                continue;
            };
            if let Some(at) = rest.find('/') {
                common.insert(format!("{prefix}{}", &rest[..=at]));
                continue;
            }
            let metadata = fs::metadata(&path).unwrap();
            let etag = etag_of(&metadata).replace('"', "&quot;");
            let size = metadata.len();
            text += &format!(
                "<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>{etag}</ETag><Size>{size}</Size></Contents>"
            );
        }
        for prefix in common {
            text += &format!("<CommonPrefixes><Prefix>{prefix}</Prefix></CommonPrefixes>");
        }
        format!(
            "<ListBucketResult><Name>{bucket}</Name><IsTruncated>false</IsTruncated>{text}</ListBucketResult>"
        )
    }
}

fn etag_of(metadata: &fs::Metadata) -> String {
    let (seconds, nanoseconds) = (metadata.mtime(), metadata.mtime_nsec());
    format!("\"{:x}-{seconds:x}-{nanoseconds:x}\"", metadata.ino())
}

fn say(
    mut stream: &TcpStream,
    status: &str,
    headers: &[(&str, &str)],
    body: &[u8],
    head: &Head,
) -> Option<()> {
    let mut text = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    stream.write_all(format!("{text}\r\n").as_bytes()).ok()?;
    if head.method != "HEAD" {
        stream.write_all(body).ok()?;
    }
    Some(())
}
