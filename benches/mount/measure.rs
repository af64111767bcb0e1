//! What one pass of a reader takes.

use std::path::Path;
use std::time::Instant;

use super::mounted::Mounted;
use super::reading::{Range, Reader, cached};

/// One pass, or the medians of several.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pass {
    pub bytes_per_second: f64,
    /// Per byte delivered, or per 10^9 of them.
    pub cpu: f64,
    pub source_bytes: f64,
    pub cached_bytes: f64,
    /// Of the daemon, in bytes.
    pub anonymous: f64,
}

pub fn plain(reader: Reader, ranges: &[Range]) -> Pass {
    let start = Instant::now();
    let bytes = reader.read(ranges) as f64;
    Pass {
        bytes_per_second: bytes / start.elapsed().as_secs_f64(),
        ..Pass::default()
    }
}

pub fn mounted(reader: Reader, ranges: &[Range], mount: &Mounted, source: &Path) -> Pass {
    let (cpu, read) = (mount.cpu(), mount.read_bytes());
    let start = Instant::now();
    let bytes = reader.read(ranges) as f64;
    let seconds = start.elapsed().as_secs_f64();
    let whole: u64 = ranges.iter().map(|(_, start, end)| end - start).sum();
    Pass {
        bytes_per_second: bytes / seconds,
        cpu: (mount.cpu() - cpu) / bytes * 1e9,
        source_bytes: (mount.read_bytes() - read) as f64 / whole as f64,
        cached_bytes: (cached(source) + cached(&mount.point)) as f64 / whole as f64,
        anonymous: mount.anonymous() as f64,
    }
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

pub fn medians(passes: &[Pass]) -> Pass {
    let median = |field: fn(&Pass) -> f64| median(passes.iter().map(field).collect());
    Pass {
        bytes_per_second: median(|pass| pass.bytes_per_second),
        cpu: median(|pass| pass.cpu),
        source_bytes: median(|pass| pass.source_bytes),
        cached_bytes: median(|pass| pass.cached_bytes),
        anonymous: median(|pass| pass.anonymous),
    }
}
