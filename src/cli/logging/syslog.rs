//! The system's log: syslog, or the journal, which answers on the same socket.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use tracing::Level;

/// Where syslogd and journald take messages.
const SOCKET: &str = "/dev/log";

/// The number of syslog's facility `daemon`, as messages carry it.
const FACILITY: u8 = 3 << 3;

/// Bytes of a message, as much as every syslogd takes.
const MOST: usize = 8 << 10;

/// Longest time that a message may wait for a slow daemon.
const PATIENCE: Duration = Duration::from_secs(1);

/// A connection to the system's log.
#[derive(Debug)]
pub struct Syslog(UnixDatagram);

impl Syslog {
    /// Connects. An error is a system without such a log.
    pub fn connect() -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(SOCKET)?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Self(socket))
    }

    /// Sends a line. A daemon that was started anew in between is connected to again.
    pub fn send(&mut self, level: Level, line: &[u8]) -> io::Result<()> {
        let message = message(level, line);
        let sent = self.0.send(&message).or_else(|_| {
            *self = Self::connect()?;
            self.0.send(&message)
        });
        sent.map(drop)
    }
}

/// `<PRIORITY>NAME[PROCESS]: LINE`, as RFC 3164 has it; the receiver adds the time.
fn message(level: Level, line: &[u8]) -> Vec<u8> {
    let line = line.trim_ascii_end();
    let line = line.get(..MOST).unwrap_or(line);
    let priority = FACILITY | severity(level);
    let front = format!("<{priority}>ckptfs[{}]: ", std::process::id());
    [front.as_bytes(), line].concat()
}

fn severity(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_its_priority_name_and_process() {
        let process = std::process::id();
        let expected = format!("<27>ckptfs[{process}]: lost");
        assert_eq!(message(Level::ERROR, b"lost\n"), expected.as_bytes());
        let long = message(Level::INFO, &[b'x'; 2 * MOST]);
        assert!(long.starts_with(b"<30>") && long.len() < MOST + 40);
    }
}
