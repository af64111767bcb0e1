//! Measures one pass of a reader.

use std::fs;
use std::path::Path;
use std::time::Instant;

use super::mounted::{self, Mounted};
use super::reading::{Range, Reader, cached};

/// One pass, or the medians of several.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pass {
    pub bytes_per_second: f64,
    /// Processor seconds for 10^9 bytes delivered: of the reader, and of the daemon.
    pub reader: f64,
    pub cpu: f64,
    /// Per byte delivered.
    pub source_bytes: f64,
    pub cached_bytes: f64,
    /// Of the daemon, in bytes.
    pub anonymous: f64,
}

pub fn plain(reader: Reader, ranges: &[Range]) -> Pass {
    timed(reader, ranges).0
}

/// One pass, and how many bytes it delivered.
fn timed(reader: Reader, ranges: &[Range]) -> (Pass, f64) {
    let before = reader_cpu();
    let start = Instant::now();
    let bytes = reader.read(ranges) as f64;
    let pass = Pass {
        bytes_per_second: bytes / start.elapsed().as_secs_f64(),
        reader: (reader_cpu() - before) / bytes * 1e9,
        ..Pass::default()
    };
    (pass, bytes)
}

pub fn mounted(reader: Reader, ranges: &[Range], mount: &Mounted, source: &Path) -> Pass {
    let (cpu, read) = (mount.cpu(), mount.read_bytes());
    let (pass, bytes) = timed(reader, ranges);
    let whole: u64 = ranges.iter().map(|(_, start, end)| end - start).sum();
    Pass {
        cpu: (mount.cpu() - cpu) / bytes * 1e9,
        source_bytes: (mount.read_bytes() - read) as f64 / whole as f64,
        cached_bytes: (cached(source) + cached(&mount.point)) as f64 / whole as f64,
        anonymous: mount.anonymous() as f64,
        ..pass
    }
}

/// Seconds of processor time that this process, which reads, took so far.
fn reader_cpu() -> f64 {
    mounted::cpu(&fs::read_to_string("/proc/self/stat").expect("/proc of the reader"))
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

pub fn medians(passes: &[Pass]) -> Pass {
    let median = |field: fn(&Pass) -> f64| median(passes.iter().map(field).collect());
    Pass {
        bytes_per_second: median(|pass| pass.bytes_per_second),
        reader: median(|pass| pass.reader),
        cpu: median(|pass| pass.cpu),
        source_bytes: median(|pass| pass.source_bytes),
        cached_bytes: median(|pass| pass.cached_bytes),
        anonymous: median(|pass| pass.anonymous),
    }
}
