//! From the command to the mount that answers, for files of many tensors, beside the format's own reader of the same header.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use safetensors::SafeTensors;

use super::Options;
use super::measure::median;
use super::mounted::Mounted;

const COUNTS: [usize; 2] = [100_000, 1_000_000];
/// Bytes of a tensor.
const BYTES: usize = 8;

/// Measures the start of a mount of `count` tensors.
struct Start {
    count: usize,
    /// Seconds: of the mount, and of the format's own reader.
    mount: f64,
    reader: f64,
    /// The daemon's own bytes for each tensor.
    memory: f64,
}

pub fn run(options: &Options, dir: &Path) {
    let name = |count| format!("start-up, {count} tensors");
    let wanted = COUNTS
        .iter()
        .filter(|count| name(**count).contains(&options.only));
    for count in wanted {
        let start = measure(*count, options, dir);
        println!(
            "{}: mounted after {:.3} s, {:.1} times what safetensors takes to read the header ({:.3} s), {:.0} bytes of memory a tensor",
            name(start.count),
            start.mount,
            start.mount / start.reader,
            start.reader,
            start.memory,
        );
    }
}

fn measure(count: usize, options: &Options, dir: &Path) -> Start {
    let (source, bytes) = write(count, dir);
    let (mut mounts, mut readers, mut memory) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        let start = Instant::now();
        SafeTensors::read_metadata(&bytes).expect("a header");
        readers.push(start.elapsed().as_secs_f64());
        let start = Instant::now();
        let mount = Mounted::start(&options.program, &source, &[]);
        mounts.push(start.elapsed().as_secs_f64());
        memory.push(mount.settled_anonymous() as f64 / count as f64);
    }
    Start {
        count,
        mount: median(mounts),
        reader: median(readers),
        memory: median(memory),
    }
}

/// A folder with one file of so many tensors, and the bytes of that file.
fn write(count: usize, dir: &Path) -> (PathBuf, Vec<u8>) {
    let folder = dir.join(format!("start-{count}"));
    fs::create_dir_all(&folder).expect("a folder");
    let entry = |i: usize| {
        let (layer, expert, start) = (i / 1000, i % 1000, i * BYTES);
        let end = start + BYTES;
        format!(
            r#""layers.{layer}.{expert}.w":{{"dtype":"F32","shape":[2],"data_offsets":[{start},{end}]}}"#
        )
    };
    let entries: Vec<String> = (0..count).map(entry).collect();
    let json = format!("{{{}}}", entries.join(","));
    let length = (json.len() as u64).to_le_bytes();
    let data = vec![0; count * BYTES];
    let bytes = [&length, json.as_bytes(), &data].concat();
    fs::write(folder.join("model.safetensors"), &bytes).expect("a file");
    fs::write(folder.join("config.json"), r#"{"model_type": "free"}"#).expect("config.json");
    (folder, bytes)
}
