//! Failed requests: all counted, few logged, each in one line.

use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use fuser::Errno;

use crate::text::one_line;

/// Lines logged in each period; a reader that retries must not fill the disk.
const LINES: u32 = 10;
const PERIOD: Duration = Duration::from_secs(30);

/// The log and the count of failed requests.
#[derive(Debug, Default)]
pub struct ErrorLog {
    total: AtomicU64,
    period: Mutex<Period>,
}

impl ErrorLog {
    pub fn record(&self, what: impl Display) {
        self.total.fetch_add(1, Ordering::Relaxed);
        let (logged, suppressed) = self.with(|period| period.admit(Instant::now()));
        report(suppressed);
        if logged {
            tracing::error!("{}", one_line(&what.to_string()));
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Period) -> T) -> T {
        act(&mut self.period.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for ErrorLog {
    fn drop(&mut self) {
        report(self.with(|period| period.suppressed));
        let total = *self.total.get_mut();
        if total > 0 {
            tracing::info!("{total} requests failed");
        }
    }
}

fn report(suppressed: u64) {
    if suppressed > 0 {
        tracing::warn!("{suppressed} more errors like these were not logged");
    }
}

#[derive(Debug, Default)]
struct Period {
    began: Option<Instant>,
    lines: u32,
    suppressed: u64,
}

impl Period {
    /// Whether an error at `now` is logged, and how many of the period before were not.
    fn admit(&mut self, now: Instant) -> (bool, u64) {
        let over = self
            .began
            .is_none_or(|began| now.saturating_duration_since(began) >= PERIOD);
        let suppressed = if over { self.suppressed } else { 0 };
        if over {
            *self = Self {
                began: Some(now),
                ..Self::default()
            };
        }
        let logged = self.lines < LINES;
        self.lines += u32::from(logged);
        self.suppressed += u64::from(!logged);
        (logged, suppressed)
    }
}

/// The answer of a handler.
pub type Answer<T> = std::result::Result<T, Errno>;

/// Runs `act`, and turns a panic into an error.
pub fn caught<T>(act: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(act)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_lines_in_each_period_then_a_count() {
        let start = Instant::now();
        let mut period = Period::default();
        let answers: Vec<_> = (0..15).map(|_| period.admit(start)).collect();
        assert!(answers[..10].iter().all(|answer| *answer == (true, 0)));
        assert!(answers[10..].iter().all(|answer| *answer == (false, 0)));
        assert_eq!(period.admit(start + PERIOD), (true, 5));
        assert_eq!(period.admit(start + PERIOD), (true, 0));
    }

    #[test]
    fn every_error_counts() {
        let log = ErrorLog::default();
        (0..25).for_each(|_| log.record("x"));
        assert_eq!(log.total.load(Ordering::Relaxed), 25);
    }
}
