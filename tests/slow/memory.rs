//! Resources of a serving daemon: memory of many threads and readers, and address space where it is limited.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::common::programs::*;
use crate::{need_fuse, need_root};

const MIB: u64 = 1 << 20;

/// Layers of Mixtral's first files in f32: rows in rotary order and transposed experts.
fn mixtral(stage: &Stage, layers: u32) {
    let folder = stage.source();
    fs::remove_dir_all(&folder).unwrap();
    fs::create_dir(&folder).unwrap();
    let mut arrays = vec![
        ("norm.weight".to_owned(), vec![1024]),
        ("output.weight".to_owned(), vec![256, 1024]),
        ("tok_embeddings.weight".to_owned(), vec![256, 1024]),
    ];
    for layer in 0..layers {
        let mut add =
            |name: &str, shape| arrays.push((format!("layers.{layer}.{name}.weight"), shape));
        for name in ["wk", "wo", "wq", "wv"] {
            add(&format!("attention.{name}"), vec![1024, 1024]);
        }
        add("attention_norm", vec![1024]);
        add("ffn_norm", vec![1024]);
        add("block_sparse_moe.gate", vec![2, 1024]);
        for name in ["w1", "w2", "w3"] {
            let name = format!("layers.{layer}.block_sparse_moe.{name}");
            arrays.push((name, vec![4096, 1024]));
        }
    }
    let (mut entries, mut end) = (Vec::new(), 0);
    for (name, shape) in arrays {
        let start = end;
        end += shape.iter().product::<u32>() * 4;
        entries.push(format!(
            r#""{name}":{{"dtype":"F32","shape":{shape:?},"data_offsets":[{start},{end}]}}"#
        ));
    }
    let header = format!("{{{}}}", entries.join(","));
    let mut file = File::create(folder.join("model.safetensors")).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes())
        .unwrap();
    file.write_all(header.as_bytes()).unwrap();
    for start in (0..end / 4).step_by(1 << 18) {
        let numbers = start..(start + (1 << 18)).min(end / 4);
        let numbers = numbers.map(|i| i.wrapping_mul(2_654_435_761) & 0x3FFF_3FFF);
        let bytes: Vec<u8> = numbers.flat_map(u32::to_le_bytes).collect();
        file.write_all(&bytes).unwrap();
    }
    file.sync_all().unwrap();
    let config = format!(
        r#"{{"architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "hidden_size": 1024, "intermediate_size": 2048,
        "num_hidden_layers": {layers}, "num_attention_heads": 8, "num_key_value_heads": 8, "head_dim": 128, "num_local_experts": 2,
        "vocab_size": 256, "tie_word_embeddings": false, "rms_norm_eps": 1e-05, "torch_dtype": "float32"}}"#
    );
    fs::write(folder.join("config.json"), config).unwrap();
}

fn ended(program: Foreground) {
    program.signal(libc::SIGTERM);
    let (status, said) = program.wait();
    assert_eq!(status, Some(0), "{said}");
}

fn forget(source: &Path) {
    let file = File::open(source.join("model.safetensors")).unwrap();
    // SAFETY: the call takes a descriptor and numbers.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
}

/// Reads the mount's weights, cold, by readers that begin at different places, and holds them to `want`.
fn read_by(readers: u64, stage: &Stage, want: &[u8], flags: i32) {
    const PIECE: usize = 1 << 20;
    forget(&stage.source());
    let count = want.len().div_ceil(PIECE) as u64;
    let read = |first: u64| {
        let mut options = File::options();
        let file = options.read(true).custom_flags(flags).open(stage.weights());
        let (file, mut memory) = (file.unwrap(), vec![0; PIECE + 4096]);
        let skip = memory.as_ptr().align_offset(4096);
        let buffer = &mut memory[skip..skip + PIECE];
        for number in (first..count).chain(0..first) {
            let (at, want) = (number * MIB, &want[number as usize * PIECE..]);
            let length = file.read_at(buffer, at).unwrap();
            assert!(length > 0 && buffer[..length] == want[..length], "at {at}");
        }
    };
    thread::scope(|scope| {
        for reader in 0..readers {
            scope.spawn(move || read(count * reader / readers));
        }
    });
}

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_ckptfs"))
}

#[test]
fn few_addresses_do_for_rows_in_another_order_and_transposed_tensors() {
    need_fuse!();
    let stage = Stage::new();
    mixtral(&stage, 5);
    for flags in [&[][..], &["--dtype", "bf16"]] {
        let mounted = stage.mount_with(program(), flags);
        let want = fs::read(stage.weights()).unwrap();
        ended(mounted);
        for mib in [260, 320, 500] {
            let mut limited = Command::new("prlimit");
            limited
                .arg(format!("--as={}", mib * MIB))
                .arg(program().get_program());
            let mounted = stage.mount_with(limited, flags);
            read_by(6, &stage, &want, 0);
            ended(mounted);
        }
    }
}

#[test]
fn many_threads_and_readers_stay_within_the_memory_that_is_promised() {
    need_fuse!();
    let stage = Stage::new();
    mixtral(&stage, 5);
    let flags = [
        "--dtype",
        "bf16",
        "--threads",
        "16",
        "--cache-size",
        "24MiB",
    ];
    let mounted = stage.mount_with(program(), &flags);
    let want = fs::read(stage.weights()).unwrap();
    let (pid, is_done) = (mounted.id(), AtomicBool::new(false));
    let most = thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut most = 0;
            while !is_done.load(Ordering::Relaxed) {
                most = most.max(anonymous(pid));
                thread::sleep(Duration::from_millis(2));
            }
            most
        });
        for flags in [libc::O_DIRECT, 0] {
            read_by(20, &stage, &want, flags);
        }
        is_done.store(true, Ordering::Relaxed);
        watch.join().unwrap()
    });
    ended(mounted);
    assert!((8 * MIB..=(64 + 16) * MIB).contains(&most), "{most} bytes");
}

/// A control group whose memory is limited, removed in the end.
struct Group(std::path::PathBuf);

impl Group {
    /// In either version. `None` where this user or machine can make none.
    fn limited(bytes: u64) -> Option<Self> {
        let name = format!("ckptfs-test-{}", std::process::id());
        let hierarchies = [
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            ("/sys/fs/cgroup", "memory.max"),
        ];
        hierarchies.into_iter().find_map(|(hierarchy, limit)| {
            let group = Self(Path::new(hierarchy).join(&name));
            fs::create_dir(&group.0).ok()?;
            let file = group.0.join(limit);
            // A file that is not there already is none of a control group's.
            (file.exists() && fs::write(file, bytes.to_string()).is_ok()).then_some(group)
        })
    }

    /// The program as a member.
    fn program(&self) -> Command {
        let mut command = Command::new("sh");
        let script = "echo $$ > $0/cgroup.procs && exec \"$@\"";
        command
            .args(["-c", script])
            .arg(&self.0)
            .arg(program().get_program());
        command
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        fs::remove_dir(&self.0).ok();
    }
}

#[test]
fn a_control_groups_limit_shrinks_the_caches() {
    need_fuse!();
    need_root!();
    let stage = Stage::new();
    mixtral(&stage, 5);
    let mounted = stage.mount();
    let want = fs::read(stage.weights()).unwrap();
    ended(mounted);
    let Some(group) = Group::limited(64 * MIB) else {
        eprintln!("SKIPPED: no control group can be made here");
        return;
    };
    let mounted = stage.mount_with(group.program(), &["--threads", "16"]);
    read_by(2, &stage, &want, 0);
    let anonymous = anonymous(mounted.id());
    assert!(anonymous < 64 * MIB, "{anonymous} bytes");
    ended(mounted);
}

/// Anonymous memory of a process, in bytes.
fn anonymous(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let mut lines = status.lines();
    let line = lines
        .find_map(|line| line.strip_prefix("RssAnon:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}
