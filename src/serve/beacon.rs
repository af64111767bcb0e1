//! Servers of this machine, found without a file: each has a socket in the kernel's abstract namespace, whose name `status`
//! sees in /proc/net/unix and which tells what is served.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as Name, UnixListener, UnixStream};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

const PREFIX: &str = "ckptfs-serve-";

/// How long a server may take to say what it serves.
const PATIENCE: Duration = Duration::from_secs(1);

/// Longest text of a server.
const LONGEST: u64 = 64 << 10;

/// A server that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Served {
    pub source: String,
    pub address: SocketAddr,
    pub process: u32,
}

impl Served {
    /// Tells every caller of the socket, as long as the process lives.
    pub fn announce(&self) -> io::Result<()> {
        let name =
            Name::from_abstract_name(format!("{PREFIX}{}-{}", self.process, self.address.port()))?;
        let listener = UnixListener::bind_addr(&name)?;
        let text = serde_json::to_string(self)?;
        thread::Builder::new()
            .name("ckptfs-beacon".to_owned())
            .spawn(move || {
                for mut caller in listener.incoming().flatten() {
                    caller.set_write_timeout(Some(PATIENCE)).ok();
                    caller.write_all(text.as_bytes()).ok();
                }
            })?;
        Ok(())
    }
}

/// The servers of this network namespace, of all users.
pub fn served() -> Vec<Served> {
    let table = std::fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let names = table.lines().filter_map(|line| {
        let name = line.split_whitespace().last()?.strip_prefix('@')?;
        name.starts_with(PREFIX).then(|| name.to_owned())
    });
    let mut names: Vec<String> = names.collect();
    names.sort_unstable();
    names.dedup();
    names.iter().filter_map(|name| ask(name).ok()).collect()
}

fn ask(name: &str) -> io::Result<Served> {
    let stream = UnixStream::connect_addr(&Name::from_abstract_name(name)?)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut text = String::new();
    stream.take(LONGEST).read_to_string(&mut text)?;
    Ok(serde_json::from_str(&text)?)
}
