//! The log. A command that ends by itself writes its lines to standard error at once, in order with what it prints. The lines of a
//! mount are written by a thread of their own, also to its log file and the system's log. Where one of them takes no more (a pipe
//! without a reader, a disk that hangs, RLIMIT_FSIZE), lines are lost and counted, and neither a request nor the end waits.

mod syslog;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::mem::{ManuallyDrop, take};
use std::os::fd::FromRawFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

use super::mount_log::MountLog;
pub use syslog::Syslog;

/// Bytes of lines that may wait to be written.
const ROOM: usize = 256 << 10;

/// Longest single wait of the thread that writes; it then waits again.
const NEXT_LOOK: Duration = Duration::from_secs(60 * 60);

/// Stack of the thread that writes.
const STACK: usize = 128 << 10;

/// Where all parts of the program put their lines.
#[derive(Debug, Clone, Default)]
pub struct Log(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
    copies: Mutex<Copies>,
    /// Whether readers depend on the process, so that it waits for no line.
    serves: bool,
}

/// Where lines go beside standard error.
#[derive(Debug, Default)]
struct Copies {
    mount: Option<MountLog>,
    system: Option<Syslog>,
}

#[derive(Debug)]
struct Line {
    level: Level,
    bytes: Vec<u8>,
}

#[derive(Debug, Default)]
struct Queue {
    lines: VecDeque<Line>,
    /// Of all lines that wait.
    bytes: usize,
    /// Lines that were not written since the last notice of such.
    lost: u64,
    has_thread: bool,
    /// Whether a line is on its way.
    is_writing: bool,
}

impl Log {
    /// Makes the log of a command, which serves readers or not.
    pub fn new(serves: bool) -> Self {
        let shared = Shared {
            serves,
            ..Shared::default()
        };
        Self(Arc::new(shared))
    }

    /// Takes a line of a failure over, or counts it as lost where too many wait already. Never waits.
    pub fn push(&self, line: &[u8]) {
        self.take(Level::ERROR, line);
    }

    /// Writes each line from here on to the log of a mount, and to the system's log where there is one.
    pub fn copy_to(&self, mount: Option<MountLog>, system: Option<Syslog>) {
        *self.0.copies() = Copies { mount, system };
    }

    fn take(&self, level: Level, bytes: &[u8]) {
        if !self.0.serves {
            write(bytes).ok();
            return;
        }
        let mut queue = self.0.queue();
        if queue.bytes + bytes.len() > ROOM {
            queue.lost += 1;
            return;
        }
        queue.bytes += bytes.len();
        let bytes = bytes.to_vec();
        queue.lines.push_back(Line { level, bytes });
        self.start_thread(&mut queue);
        self.0.changed.notify_all();
    }

    /// Waits until all lines are written, but for no longer than `patience`. Returns whether they are.
    pub fn finish(&self, patience: Duration) -> bool {
        let end = Instant::now() + patience;
        let mut queue = self.0.queue();
        self.start_thread(&mut queue);
        while !queue.is_idle() && queue.has_thread {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            queue = self.0.wait(queue, left);
        }
        queue.is_idle()
    }

    /// A thread that cannot be started now is tried again with the next line.
    fn start_thread(&self, queue: &mut Queue) {
        if !queue.has_thread && !queue.lines.is_empty() {
            let shared = self.0.clone();
            let thread = thread::Builder::new().stack_size(STACK);
            queue.has_thread = thread.spawn(move || shared.write_lines()).is_ok();
        }
    }
}

/// A writer of lines of one level.
#[derive(Debug)]
pub struct Lines(Log, Level);

impl MakeWriter<'_> for Log {
    type Writer = Lines;

    fn make_writer(&self) -> Lines {
        Lines(self.clone(), Level::INFO)
    }

    fn make_writer_for(&self, of: &Metadata<'_>) -> Lines {
        Lines(self.clone(), *of.level())
    }
}

/// Each call takes one line, as `tracing` writes it.
impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.take(self.1, line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    fn write_lines(&self) {
        loop {
            let mut queue = self.queue();
            let line = loop {
                match queue.next() {
                    Some(line) => break line,
                    None => queue = self.wait(queue, NEXT_LOOK),
                }
            };
            drop(queue);
            let is_written = self.write(&line).is_ok();
            let lost = self.queue().record(is_written);
            if lost > 0 {
                tracing::warn!(
                    "{lost} log lines before this one were lost: they could not be written"
                );
            }
            self.queue().is_writing = false;
            self.changed.notify_all();
        }
    }

    /// Writes a line everywhere. The log of the mount comes first: standard error may be a pipe that blocks.
    fn write(&self, line: &Line) -> io::Result<()> {
        let copied = self.copies().write(line);
        write(&line.bytes).and(copied)
    }

    fn copies(&self) -> MutexGuard<'_, Copies> {
        self.copies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'q>(&self, queue: MutexGuard<'q, Queue>, patience: Duration) -> MutexGuard<'q, Queue> {
        let waited = self.changed.wait_timeout(queue, patience);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Copies {
    fn write(&mut self, line: &Line) -> io::Result<()> {
        let written = self.mount.as_mut().map(|log| log.write(&line.bytes));
        if let Some(system) = &mut self.system {
            // The mount's own log has the line.
            system.send(line.level, &line.bytes).ok();
        }
        written.unwrap_or(Ok(()))
    }
}

impl Queue {
    fn next(&mut self) -> Option<Line> {
        let line = self.lines.pop_front()?;
        self.bytes -= line.bytes.len();
        self.is_writing = true;
        Some(line)
    }

    /// Takes account of a line. Returns how many were lost, once there is room to say so.
    fn record(&mut self, is_written: bool) -> u64 {
        self.lost += u64::from(!is_written);
        match is_written && self.lines.is_empty() {
            true => take(&mut self.lost),
            false => 0,
        }
    }

    fn is_idle(&self) -> bool {
        self.lines.is_empty() && !self.is_writing
    }
}

/// Writes to the descriptor itself: standard error's own lock would make others wait for a line that blocks.
fn write(line: &[u8]) -> io::Result<()> {
    // SAFETY: standard error is open as long as the process is, and the File is never dropped.
    let mut stderr = ManuallyDrop::new(unsafe { File::from_raw_fd(libc::STDERR_FILENO) });
    stderr.write_all(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_beyond_the_room_are_counted_and_said_when_there_is_room() {
        let line = Line {
            level: Level::WARN,
            bytes: vec![1],
        };
        let mut queue = Queue {
            lines: [line].into(),
            bytes: 1,
            lost: 3,
            ..Queue::default()
        };
        assert_eq!(queue.record(true), 0);
        assert_eq!(queue.next().map(|line| line.bytes), Some(vec![1]));
        assert!(!queue.is_idle());
        assert_eq!(queue.record(false), 0);
        assert_eq!(queue.record(true), 4);
        assert_eq!(queue.record(true), 0);
    }
}
