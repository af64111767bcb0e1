//! Computed tensors and the layouts of trainers through real mounts: what may be combined, and the bytes that a read costs.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Map, Value, json};

use crate::common::mounts::noise;
use crate::common::programs::*;
use crate::need_fuse;

const KIB: u64 = 1 << 10;

/// A tensor of a file: name, type, shape, and its bytes; a file without bytes is sparse.
type Array<'a> = (&'a str, &'a str, Vec<u64>, Option<Vec<u8>>);

/// Writes a folder of one safetensors file and a config.
fn save(folder: &Path, file: &str, arrays: &[Array<'_>], config: (&str, Value)) {
    fs::create_dir_all(folder).unwrap();
    let width = |dtype: &str| match dtype {
        "F32" | "I32" => 4,
        "BF16" => 2,
        _ => 1,
    };
    let (mut header, mut end) = (Map::new(), 0);
    for (name, dtype, shape, _) in arrays {
        let start = end;
        end += shape.iter().product::<u64>() * width(dtype);
        let entry = json!({"dtype": dtype, "shape": shape, "data_offsets": [start, end]});
        header.insert((*name).to_owned(), entry);
    }
    let mut header = Value::Object(header).to_string();
    // The data begins at a block, as the reads of it do.
    header.extend(std::iter::repeat_n(' ', 4096 - 8 - header.len()));
    let written = fs::File::create(folder.join(file)).unwrap();
    let length = (header.len() as u64).to_le_bytes();
    written.write_all_at(&length, 0).unwrap();
    written.write_all_at(header.as_bytes(), 8).unwrap();
    written.set_len(4096 + end).unwrap();
    let mut at = 4096;
    for (_, dtype, shape, bytes) in arrays {
        if let Some(bytes) = bytes {
            written.write_all_at(bytes, at).unwrap();
        }
        at += shape.iter().product::<u64>() * width(dtype);
    }
    written.sync_all().unwrap();
    let (name, config) = config;
    fs::write(folder.join(name), config.to_string()).unwrap();
}

/// Floats of about one, of a seed.
fn floats(count: u64, seed: u64) -> Option<Vec<u8>> {
    let bytes = noise(4 * count as usize, seed);
    let (words, _) = bytes.as_chunks::<4>();
    let float = |word: &[u8; 4]| (f32::from(word[0]) - 128.0) / 512.0;
    Some(
        words
            .iter()
            .flat_map(|word| float(word).to_le_bytes())
            .collect(),
    )
}

/// A stage whose weights are numbers below 2.
fn finite() -> Stage {
    let stage = Stage::new();
    let path = stage.source().join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let header = 8 + u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    let (elements, _) = bytes[header..].as_chunks_mut::<2>();
    elements.iter_mut().for_each(|[_, high]| *high &= 0xbf);
    fs::write(&path, bytes).unwrap();
    stage
}

/// An adapter of rank 2 for the base's query and output projections.
fn adapter(stage: &Stage) {
    let module = |name: &str| format!("base_model.model.model.layers.0.self_attn.{name}");
    let names = ["q_proj", "o_proj"].map(module);
    let names: Vec<[String; 2]> = names
        .iter()
        .map(|name| ["A", "B"].map(|part| format!("{name}.lora_{part}.weight")))
        .collect();
    let mut arrays: Vec<Array<'_>> = Vec::new();
    for (number, [a, b]) in names.iter().enumerate() {
        let seed = 2 * number as u64;
        arrays.push((a, "F32", vec![2, 512], floats(1024, seed)));
        arrays.push((b, "F32", vec![512, 2], floats(1024, seed + 1)));
    }
    let config = json!({"peft_type": "LORA", "r": 2, "lora_alpha": 3, "target_modules": ["q_proj", "o_proj"]});
    save(
        &stage.other("adapter"),
        "adapter_model.safetensors",
        &arrays,
        ("adapter_config.json", config),
    );
}

fn done(stage: &Stage, words: &[&str]) -> String {
    let output = stage.run(words);
    assert_eq!(output.status.code(), Some(0), "{words:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => {
                    let name = path.strip_prefix(folder).unwrap().to_owned();
                    all.insert(name, fs::read(&path).unwrap());
                }
            }
        }
    }
    all
}

const LAYOUTS: [&[&str]; 5] = [
    &[
        "--as",
        "dcp",
        "--names",
        "torchtitan",
        "--chunk-size",
        "64KiB",
    ],
    &["--as", "dcp", "--names", "lingua"],
    &["--as", "torch"],
    &["--as", "torch", "--names", "torchtune"],
    &["--as", "meta"],
];

/// A layout of computed tensors is that of the tensors once saved.
#[test]
fn trainers_layouts_show_what_is_computed() {
    let stage = finite();
    adapter(&stage);
    done(&stage, &["export", "source", "fp8", "--quantize", "fp8"]);
    for (source, computing, layouts) in [
        ("source", &["--merge", "adapter"][..], &LAYOUTS[..2]),
        ("fp8", &["--dequantize", "bf16"], &LAYOUTS[2..3]),
        (
            "fp8",
            &["--dequantize", "bf16", "--merge", "adapter=0.5"],
            &LAYOUTS[3..],
        ),
        (
            "source",
            &["--average", "source", "--dtype", "f32"],
            &LAYOUTS[..1],
        ),
    ] {
        fs::remove_dir_all(stage.other("saved")).ok();
        done(&stage, &[&["export", source, "saved"], computing].concat());
        for layout in layouts {
            for made in ["there", "again"] {
                fs::remove_dir_all(stage.other(made)).ok();
            }
            done(&stage, &[&["export", "saved", "there"], *layout].concat());
            done(
                &stage,
                &[&["export", source, "again"], computing, *layout].concat(),
            );
            let (there, again) = (
                contents(&stage.other("there")),
                contents(&stage.other("again")),
            );
            assert!(there == again, "{source} {computing:?} {layout:?}");
            assert!(there.len() > 1, "{there:?}");
        }
    }
}

#[test]
fn verify_and_exec_take_computed_tensors_in_every_layout() {
    need_fuse!();
    let stage = Stage::new();
    adapter(&stage);
    for layout in LAYOUTS {
        let options = [&["source", "--merge", "adapter"], layout].concat();
        let said = done(&stage, &[&["verify"], &options[..]].concat());
        assert!(
            said.contains("2 tensors are computed, merge: dot = fma(B, A, dot)"),
            "{said}"
        );
        let copy = ["--", "sh", "-c", "cp -r \"$1\" copied", "sh", "{}"];
        fs::remove_dir_all(stage.other("copied")).ok();
        fs::remove_dir_all(stage.other("exported")).ok();
        done(&stage, &[&["exec"], &options[..], &copy].concat());
        done(
            &stage,
            &[&["export", options[0], "exported"], &options[1..]].concat(),
        );
        let (copied, exported) = (
            contents(&stage.other("copied")),
            contents(&stage.other("exported")),
        );
        assert!(copied.keys().eq(exported.keys()), "{layout:?}");
        for (name, bytes) in copied {
            // An export has the checksums that a mount leaves at 0: four bytes each, twice.
            let differing = bytes.iter().zip(&exported[&name]).filter(|(a, b)| a != b);
            assert_eq!(bytes.len(), exported[&name].len(), "{name:?}");
            assert!(differing.count() <= 8 * 4096, "{name:?}");
        }
    }
}

#[test]
fn each_save_of_a_run_is_shown_in_the_layout_and_with_what_is_merged() {
    need_fuse!();
    let stage = Stage::new();
    adapter(&stage);
    let run = stage.other("run");
    fs::create_dir(&run).unwrap();
    for step in ["step-1", "step-2"] {
        let copied = Command::new("cp")
            .arg("-r")
            .args([stage.source(), run.join(step)])
            .status();
        assert!(copied.unwrap().success());
    }
    // Saves that are written no longer.
    let mut aged = Command::new("find");
    aged.arg(&run)
        .args(["-exec", "touch", "-d", "2 hours ago", "{}", "+"]);
    assert!(aged.status().unwrap().success());
    fs::remove_dir_all(stage.source()).unwrap();
    fs::rename(&run, stage.source()).unwrap();
    let flags = [&["--merge", "adapter"], LAYOUTS[0]].concat();
    let mounted = stage.mount_with(program(), &flags);
    let shown = |step: &str| within(|| fs::read(stage.point().join(step).join(".metadata")).ok());
    let first = shown("step-1");
    assert!(first == shown("step-2"));
    let export = ["export", "source/step-1", "exported"];
    done(&stage, &[&export, &flags[..]].concat());
    assert!(first == fs::read(stage.other("exported/.metadata")).unwrap());
    ended(mounted);
}

#[test]
fn names_that_are_wrong_or_missing_are_wrong_usage_with_the_list() {
    let stage = Stage::new();
    for words in [
        &["--as", "dcp"][..],
        &["--as", "dcp", "--names", "titan"],
        &["--as", "torch", "--names", "megatron"],
    ] {
        for command in [
            &["mount", "source", "point"][..],
            &["export", "source", "new"],
            &["inspect", "source"],
        ] {
            let output = stage.run(&[command, words].concat());
            assert_eq!(output.status.code(), Some(2), "{output:?}");
            let said = complaint(&output);
            for known in [
                "torchtitan (",
                "torchtitan-0.2 (",
                "lingua (",
                "torchtune (",
                "meta (",
                "hf (all)",
                "qwen3_moe",
            ] {
                assert!(said.contains(known), "{known}: {said}");
            }
        }
    }
    for words in [&["--names", "meta"][..], &["--as", "meta", "--names", "hf"]] {
        let output = stage.run(&[&["mount", "source", "point"], words].concat());
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        complaint(&output);
    }
}

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_ckptfs"))
}

fn ended(program: Foreground) {
    program.signal(libc::SIGTERM);
    let (status, said) = program.wait();
    assert_eq!(status, Some(0), "{said}");
}

/// A count of /proc/PID/io. `rchar`: bytes that a process has asked the kernel for with reads, whether of a disk or of the page
/// cache; `syscr`: those reads.
fn count_of(program: &Foreground, name: &str) -> u64 {
    let io = fs::read_to_string(format!("/proc/{}/io", program.id())).unwrap();
    let mut lines = io.lines().filter_map(|line| line.split_once(": "));
    let (_, count) = lines.find(|(own, _)| *own == name).unwrap();
    count.parse().unwrap()
}

fn bytes_read(program: &Foreground) -> u64 {
    count_of(program, "rchar")
}

/// Replaces the source, cold.
fn source(stage: &Stage, arrays: &[Array<'_>], config: Value) {
    fs::remove_dir_all(stage.source()).unwrap();
    save(
        &stage.source(),
        "model.safetensors",
        arrays,
        ("config.json", config),
    );
    let file = fs::File::open(stage.source().join("model.safetensors")).unwrap();
    // SAFETY: the call takes a descriptor and numbers.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
}

/// A folder beside the source with one tensor of zeros.
fn member(stage: &Stage, name: &str, array: Array<'_>) {
    let config = ("config.json", json!({"model_type": "free"}));
    save(&stage.other(name), "model.safetensors", &[array], config);
}

/// Most bytes that the program reads for any of some reads of 4 KiB all over the file, each past the kernel's cache. What it
/// keeps, it has before.
fn most_read_for_4_kib(stage: &Stage, flags: &[&str]) -> u64 {
    let mounted = stage.mount_with(program(), flags);
    let direct = fs::File::options()
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .open(stage.weights());
    let (file, size) = (
        direct.unwrap(),
        fs::metadata(stage.weights()).unwrap().len(),
    );
    let mut memory = vec![0; 2 * 4096];
    let skip = memory.as_ptr().align_offset(4096);
    let buffer = &mut memory[skip..skip + 4096];
    let blocks = size / 4096;
    let mut most = 0;
    for number in 0..40 {
        let before = bytes_read(&mounted);
        let block = number * 7_919 % blocks;
        assert_eq!(file.read_at(buffer, block * 4096).unwrap(), 4096);
        if number > 0 {
            most = most.max(bytes_read(&mounted) - before);
        }
    }
    ended(mounted);
    most
}

/// Rows of 16 KiB: a piece of 4 KiB is a quarter of one.
const ROWS: u64 = 4096;
const COLUMNS: u64 = 8192;

#[test]
fn a_read_of_4_kib_costs_only_what_it_is_computed_from() {
    need_fuse!();
    let stage = Stage::new();
    let free = || json!({"model_type": "free"});
    let array = |name, dtype| (name, dtype, vec![ROWS, COLUMNS], None);
    source(&stage, &[array("w.weight", "BF16")], free());
    member(&stage, "second", array("w.weight", "BF16"));
    member(&stage, "third", array("w.weight", "BF16"));
    let config = json!({"peft_type": "LORA", "r": 16, "lora_alpha": 16});
    let (a, b) = (
        "base_model.model.w.lora_A.weight",
        "base_model.model.w.lora_B.weight",
    );
    save(
        &stage.other("lora"),
        "adapter_model.safetensors",
        &[
            (a, "F32", vec![16, COLUMNS], None),
            (b, "F32", vec![ROWS, 16], None),
        ],
        ("adapter_config.json", config),
    );
    // Each input costs its part, in whole blocks of 4 KiB, and the program reads a request.
    let merged = most_read_for_4_kib(&stage, &["--merge", "lora"]);
    assert!(merged <= 24 * KIB, "merged: {merged}");
    let average = ["--average", "second", "--average", "third"];
    let averaged = most_read_for_4_kib(&stage, &average);
    assert!(averaged <= 32 * KIB, "averaged: {averaged}");
    let deltas = most_read_for_4_kib(&stage, &["--add-delta", "second=0.5"]);
    assert!(deltas <= 24 * KIB, "with a delta: {deltas}");
    let scales = (
        "w.weight_scale_inv",
        "F32",
        vec![ROWS / 128, COLUMNS / 128],
        None,
    );
    source(&stage, &[array("w.weight", "F8_E4M3"), scales], free());
    let floats = most_read_for_4_kib(&stage, &["--dequantize", "bf16"]);
    assert!(floats <= 20 * KIB, "dequantized: {floats}");
}

/// lora_B of all experts is one matrix in which experts lie interleaved: each needs a little of every row.
#[test]
fn the_factor_that_experts_share_is_not_read_for_each_of_them() {
    need_fuse!();
    const EXPERTS: u64 = 64;
    const OUT: u64 = 512;
    const IN: u64 = 128;
    const RANK: u64 = 4;
    let stage = Stage::new();
    let experts = "model.layers.0.mlp.experts.down_proj";
    let base = (experts, "BF16", vec![EXPERTS, OUT, IN], None);
    source(
        &stage,
        &[base],
        json!({"model_type": "free", "num_experts": EXPERTS}),
    );
    let config = json!({"peft_type": "LORA", "r": RANK, "lora_alpha": 4, "target_parameters": ["mlp.experts.down_proj"]});
    let module = "base_model.model.model.layers.0.mlp.experts";
    let (a, b) = (
        format!("{module}.lora_A.weight"),
        format!("{module}.lora_B.weight"),
    );
    let shared = OUT * RANK * EXPERTS;
    save(
        &stage.other("lora"),
        "adapter_model.safetensors",
        &[
            (
                &a,
                "F32",
                vec![EXPERTS * RANK, IN],
                floats(EXPERTS * RANK * IN, 1),
            ),
            (&b, "F32", vec![OUT, RANK * EXPERTS], floats(shared, 2)),
        ],
        ("adapter_config.json", config),
    );
    let mounted = stage.mount_with(program(), &["--merge", "lora"]);
    let counts = || ["rchar", "syscr"].map(|name| count_of(&mounted, name));
    let before = counts();
    let bytes = fs::read(stage.weights()).unwrap();
    let after = counts();
    ended(mounted);
    assert!(bytes.len() as u64 > EXPERTS * OUT * IN * 2);
    let [read, reads] = [0, 1].map(|number| after[number] - before[number]);
    let inputs = EXPERTS * OUT * IN * 2 + 4 * (shared + EXPERTS * RANK * IN);
    assert!(read < inputs * 3 / 2, "{read} bytes for inputs of {inputs}");
    assert!(
        reads < 4 * EXPERTS + 1000,
        "{reads} reads for {EXPERTS} experts"
    );
}
