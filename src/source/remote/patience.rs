//! How long a request is repeated: until it succeeds, fails for good, or a budget of time without progress is spent.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::failure::{Attempt, Failure};

/// First and longest wait between two attempts.
const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(2);

/// Seconds of failures after which a read fails.
static BUDGET: AtomicU64 = AtomicU64::new(60);

/// Sets for how many seconds failing requests are repeated.
pub fn set_budget(seconds: u64) {
    BUDGET.store(seconds, Ordering::Relaxed);
}

/// The waits of one request and its repetitions.
#[derive(Debug)]
pub struct Patience {
    /// When the attempts end.
    end: Instant,
    wait: Duration,
}

impl Patience {
    pub fn new() -> Self {
        Self::longer_by(Duration::ZERO)
    }

    /// With more time for a long answer.
    pub fn longer_by(more: Duration) -> Self {
        let budget = Duration::from_secs(BUDGET.load(Ordering::Relaxed));
        Self {
            end: Instant::now() + budget + more,
            wait: FIRST,
        }
    }

    /// Waits before the next attempt after `failure`.
    ///
    /// # Errors
    /// The failure, when it does not pass or the budget is spent.
    pub async fn endure(&mut self, failure: Failure) -> Attempt<()> {
        let left = self.end.saturating_duration_since(Instant::now());
        if !failure.passes() || left < self.wait {
            return Err(failure);
        }
        sleep(self.wait).await;
        // Clients that failed together should not come back together.
        let jitter = u64::from(std::process::id()) % 40 + 180;
        self.wait = (self.wait * u32::try_from(jitter).unwrap_or(200) / 100).min(LONGEST);
        Ok(())
    }

    /// Notes that bytes came: the next wait is short again.
    pub fn reward(&mut self) {
        self.wait = FIRST;
    }
}

/// Repeats `attempt` until it succeeds.
pub async fn persist<T, F>(attempt: impl Fn() -> F) -> Attempt<T>
where
    F: Future<Output = Attempt<T>>,
{
    let mut patience = Patience::new();
    loop {
        match attempt().await {
            Ok(value) => return Ok(value),
            Err(failure) => patience.endure(failure).await?,
        }
    }
}
