//! Requests that wait until a checkpoint is open: in a queue for each checkpoint, on few threads for all of them.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::fmt::{self, Debug, Formatter};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::errors::caught;

/// Checkpoints that are opened at the same time.
const THREADS: usize = 16;

/// A request that waits for the checkpoint to be open; the first one opens it. Dropped, it answers EIO.
pub type Request = Box<dyn FnOnce() + Send>;

#[derive(Default)]
pub struct Waiting(Mutex<Queues>);

#[derive(Default)]
struct Queues {
    /// Of each checkpoint that has a thread or its turn to come.
    requests: HashMap<u32, VecDeque<Request>>,
    /// Checkpoints without a thread.
    turns: VecDeque<u32>,
    threads: usize,
}

impl Debug for Waiting {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let queues = self.queues();
        f.debug_map()
            .entries(
                queues
                    .requests
                    .iter()
                    .map(|(number, queue)| (number, queue.len())),
            )
            .finish()
    }
}

impl Waiting {
    /// Has `request` done after those that wait for the same checkpoint already.
    ///
    /// # Errors
    /// When there is no thread for it.
    pub fn add(self: &Arc<Self>, checkpoint: u32, request: Request) -> io::Result<()> {
        if !self.queues().add(checkpoint, request) {
            return Ok(());
        }
        let worker = self.clone();
        let started = thread::Builder::new().spawn(move || worker.work());
        started.map(drop).inspect_err(|_| self.queues().give_up())
    }

    fn work(&self) {
        while let Some(checkpoint) = self.turn() {
            while let Some(request) = self.request(checkpoint) {
                caught(request);
            }
        }
    }

    fn turn(&self) -> Option<u32> {
        self.queues().turn()
    }

    fn request(&self, checkpoint: u32) -> Option<Request> {
        self.queues().request(checkpoint)
    }

    fn queues(&self) -> MutexGuard<'_, Queues> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queues {
    /// Whether one thread more is to work.
    fn add(&mut self, checkpoint: u32, request: Request) -> bool {
        match self.requests.entry(checkpoint) {
            Entry::Occupied(mut queue) => {
                queue.get_mut().push_back(request);
                false
            }
            Entry::Vacant(place) => {
                place.insert([request].into());
                self.turns.push_back(checkpoint);
                let is_needed = self.threads < THREADS;
                self.threads += usize::from(is_needed);
                is_needed
            }
        }
    }

    /// The next checkpoint. Without one, the thread that asks ends.
    fn turn(&mut self) -> Option<u32> {
        let turn = self.turns.pop_front();
        self.threads -= usize::from(turn.is_none());
        turn
    }

    /// The next request of a checkpoint. Without one, the next to come starts anew.
    fn request(&mut self, checkpoint: u32) -> Option<Request> {
        let request = self.requests.get_mut(&checkpoint)?.pop_front();
        if request.is_none() {
            self.requests.remove(&checkpoint);
        }
        request
    }

    /// A thread could not be started: other threads do its work, or the request fails.
    fn give_up(&mut self) {
        self.threads -= 1;
        if self.threads == 0 {
            *self = Self::default();
        }
    }
}
