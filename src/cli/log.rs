//! The log: lines go to standard error on a thread of their own. Where that takes no more (a pipe without a reader, a disk that
//! hangs, RLIMIT_FSIZE), lines are lost and counted, and neither a request nor the program's end waits.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::mem::{ManuallyDrop, take};
use std::os::fd::FromRawFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes of lines that may wait to be written.
const ROOM: usize = 256 << 10;

/// Stack of the thread that writes.
const STACK: usize = 128 << 10;

/// Where all parts of the program put their lines.
#[derive(Debug, Clone, Default)]
pub struct Log(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    lines: VecDeque<Vec<u8>>,
    /// Of all lines that wait.
    bytes: usize,
    /// Lines that were not written since the last notice of such.
    lost: u64,
    has_thread: bool,
    /// Whether a line is on its way.
    is_writing: bool,
}

impl Log {
    /// Takes a line over, or counts it as lost where too many wait already. Never waits.
    pub fn push(&self, line: &[u8]) {
        let mut queue = self.0.queue();
        if queue.bytes + line.len() > ROOM {
            queue.lost += 1;
            return;
        }
        queue.bytes += line.len();
        queue.lines.push_back(line.to_vec());
        self.start_thread(&mut queue);
        self.0.changed.notify_all();
    }

    /// Waits until all lines are written, but for no longer than `patience`, if there is one.
    pub fn finish(&self, patience: Option<Duration>) {
        let end = patience.map(|patience| Instant::now() + patience);
        let mut queue = self.0.queue();
        self.start_thread(&mut queue);
        while !queue.is_idle() && queue.has_thread {
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return;
            }
            queue = self.0.wait(queue, left);
        }
        // Without a thread, only a caller that may wait can write.
        if patience.is_none() {
            let lines = take(&mut queue.lines);
            lines.iter().for_each(|line| drop(write(line)));
        }
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

/// Each call takes one line, as `tracing` writes it.
impl Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
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
                    None => queue = self.wait(queue, None),
                }
            };
            drop(queue);
            let is_written = write(&line).is_ok();
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

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'q>(
        &self,
        queue: MutexGuard<'q, Queue>,
        patience: Option<Duration>,
    ) -> MutexGuard<'q, Queue> {
        // A condition variable has no wait without an end that also takes a time.
        let patience = patience.unwrap_or(Duration::from_secs(60 * 60));
        let waited = self.changed.wait_timeout(queue, patience);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Queue {
    fn next(&mut self) -> Option<Vec<u8>> {
        let line = self.lines.pop_front()?;
        self.bytes -= line.len();
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
        let mut queue = Queue {
            lines: [vec![1]].into(),
            bytes: 1,
            lost: 3,
            ..Queue::default()
        };
        assert_eq!(queue.record(true), 0);
        assert_eq!(queue.next(), Some(vec![1]));
        assert!(!queue.is_idle());
        assert_eq!(queue.record(false), 0);
        assert_eq!(queue.record(true), 4);
        assert_eq!(queue.record(true), 0);
    }
}
