//! The pace of a file: whether its storage answers so slowly that reads must be issued far ahead.
//!
//! A single slow read tells nothing: a busy machine and a suspended one have those too. A file counts as slow for good once
//! [`SLOW_READS`] reads were slow, the average since the last verdict is slow, and at least one read in [`SLOW_SHARE`] was.

use std::mem::take;
use std::time::Duration;

/// Throughput in bytes per second below which a read is slow.
const SLOW: f64 = 50e6;

/// Slow reads before a verdict.
const SLOW_READS: u32 = 16;

/// The slow reads must be at least one in this many.
const SLOW_SHARE: u32 = 8;

/// Shortest read that is counted: a shorter one measures latency, not throughput.
const SHORTEST: u64 = 128 << 10;

/// Reads since the last verdict.
#[derive(Debug, Default)]
pub(super) struct Pace {
    bytes: u64,
    took: Duration,
    count: u32,
    slow: u32,
}

impl Pace {
    /// Records a read, and returns whether the file is slow by all reads since the last verdict.
    pub fn record(&mut self, bytes: u64, took: Duration) -> bool {
        if bytes < SHORTEST {
            return false;
        }
        self.bytes += bytes;
        self.took += took;
        self.count = self.count.saturating_add(1);
        self.slow += u32::from(is_slow(bytes, took));
        if self.slow < SLOW_READS {
            return false;
        }
        let all = take(self);
        is_slow(all.bytes, all.took) && all.count <= all.slow * SLOW_SHARE
    }
}

fn is_slow(bytes: u64, took: Duration) -> bool {
    (bytes as f64) < SLOW * took.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_slow_by_its_average_not_by_single_reads() {
        let quick = (512 << 10, Duration::from_millis(1));
        let slow = |millis| (512 << 10, Duration::from_millis(millis));
        let is_slow_after = |reads: &[(u64, Duration)]| {
            let mut pace = Pace::default();
            let mut reads = reads.iter().cycle().take(400);
            reads.any(|(bytes, took)| pace.record(*bytes, *took))
        };
        assert!(is_slow_after(&[slow(20)]));
        assert!(!is_slow_after(&[(4096, Duration::from_millis(1))]));
        // A disk with a quota of reads per tenth of a second, a busy machine, a single pause.
        assert!(is_slow_after(&[&[quick; 15][..], &[slow(90); 4]].concat()));
        assert!(!is_slow_after(&[&[quick; 15][..], &[slow(15); 2]].concat()));
        assert!(!is_slow_after(&[&[quick; 399][..], &[slow(9000)]].concat()));
        assert!(!is_slow_after(
            &[&[quick; 180][..], &[slow(1500); 8]].concat()
        ));
    }
}
