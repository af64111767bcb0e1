//! `ckptfs export --reflink auto` on real XFS and btrfs, in images on loop devices.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::common::mounts::noise;
use crate::common::programs::*;
use crate::need_root;

/// A filesystem of its own, gone with the test.
struct Image(TempDir);

impl Image {
    /// `None`, said aloud, where the machine cannot make one.
    fn new(kind: &str, bytes: u64) -> Option<Self> {
        let image = Self(tempfile::tempdir().unwrap());
        fs::create_dir(image.point()).unwrap();
        let file = image.0.path().join("image");
        File::create(&file).unwrap().set_len(bytes).unwrap();
        let make = Command::new(format!("mkfs.{kind}"))
            .arg("-q")
            .arg(&file)
            .output();
        let made = make.is_ok_and(|output| output.status.success());
        let mounted = made && {
            let mut mount = Command::new("mount");
            mount
                .args(["-o", "loop", "-t", kind])
                .arg(&file)
                .arg(image.point());
            mount.status().is_ok_and(|status| status.success())
        };
        if !mounted {
            eprintln!("SKIPPED {kind}: mkfs.{kind} or a loop device is missing");
        }
        mounted.then_some(image)
    }

    fn point(&self) -> PathBuf {
        self.0.path().join("point")
    }

    fn used(&self) -> u64 {
        Command::new("sync")
            .arg("-f")
            .arg(self.point())
            .status()
            .unwrap();
        let output = Command::new("df")
            .args(["-B1", "--output=used"])
            .arg(self.point())
            .output();
        let text = String::from_utf8(output.unwrap().stdout).unwrap();
        text.lines().last().unwrap().trim().parse().unwrap()
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        Command::new("umount")
            .arg("-l")
            .arg(self.point())
            .status()
            .ok();
    }
}

const IMAGE: u64 = 512 << 20;
const CONFIG: &str = r#"{"model_type": "unknown"}"#;
const TENSORS: usize = 24;
const SPLIT: usize = 5;

/// Tensors of 4 MiB, written without metadata: its header is shorter than ours.
fn checkpoint(folder: &Path) {
    fs::create_dir(folder).unwrap();
    weights(&folder.join("model.safetensors"), 0..TENSORS);
    fs::write(folder.join("config.json"), CONFIG).unwrap();
}

/// The same in two files, split where no size would split them.
fn two_shards(folder: &Path) {
    fs::create_dir(folder).unwrap();
    let names = [1, 2].map(|number| format!("model-{number:05}-of-00002.safetensors"));
    weights(&folder.join(&names[0]), 0..SPLIT);
    weights(&folder.join(&names[1]), SPLIT..TENSORS);
    let map: serde_json::Map<_, _> = (0..TENSORS)
        .map(|number| {
            (
                name(number),
                names[usize::from(number >= SPLIT)].clone().into(),
            )
        })
        .collect();
    let index = serde_json::json!({"metadata": {"total_size": TENSORS << 22}, "weight_map": map});
    let file = folder.join("model.safetensors.index.json");
    fs::write(file, index.to_string()).unwrap();
    fs::write(folder.join("config.json"), CONFIG).unwrap();
}

fn name(number: usize) -> String {
    format!("layers.{number:04}.weight")
}

fn weights(file: &Path, numbers: std::ops::Range<usize>) {
    let bytes = noise((4 << 20) + TENSORS, 3);
    let tensors = numbers.map(|number| {
        let data = &bytes[number % TENSORS..][..4 << 20];
        let shape = vec![data.len()];
        let view = safetensors::tensor::TensorView::new(safetensors::Dtype::U8, shape, data);
        (name(number), view.unwrap())
    });
    safetensors::serialize_to_file(tensors, None, file).unwrap();
}

fn tensors(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut tensors = Vec::new();
    for shard in shards(folder) {
        let bytes = fs::read(folder.join(shard)).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let of_file = file.iter();
        tensors.extend(of_file.map(|(name, tensor)| (name.to_owned(), tensor.data().to_vec())));
    }
    tensors.sort();
    tensors
}

fn shards(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut shards: Vec<String> = names
        .filter(|name| name.ends_with(".safetensors"))
        .collect();
    shards.sort();
    shards
}

/// A filesystem of each kind that shares blocks, of those that this machine has.
fn images() -> impl Iterator<Item = (&'static str, Image)> {
    let kinds = ["xfs", "btrfs"].into_iter();
    kinds.filter_map(|kind| Some((kind, Image::new(kind, IMAGE)?)))
}

/// Its output and its warnings.
fn export(stage: &Stage, source: &Path, out: &Path, more: &[&str]) -> (String, String) {
    let (source, out) = (source.to_str().unwrap(), out.to_str().unwrap());
    let arguments = [&["export", source, out, "--reflink", "auto"], more].concat();
    let output = stage.run(&arguments);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let warned = text(output.stderr);
    let of_blocks = warned.lines().filter(|line| line.contains("blocks"));
    (text(output.stdout), of_blocks.collect())
}

#[test]
fn shared_blocks_cost_no_disk_and_read_the_same() {
    need_root!();
    for (kind, image) in images() {
        let stage = Stage::new();
        let (source, out) = (image.point().join("source"), image.point().join("out"));
        checkpoint(&source);
        let before = image.used();
        let (said, warned) = export(&stage, &source, &out, &[]);
        assert!(said.contains("shared with the source"), "{kind}: {said}");
        assert!(warned.is_empty(), "{kind}: {warned}");
        assert!(image.used() - before < 2 << 20, "{kind}: {before}");
        assert!(tensors(&out) == tensors(&source), "{kind}");
        // The export is a file of its own: it stays when the source goes.
        let want = tensors(&source);
        fs::write(source.join("model.safetensors"), "gone").unwrap();
        assert!(tensors(&out) == want, "{kind}");
    }
}

#[test]
fn shards_that_share_are_those_of_the_source_unless_a_size_is_asked_for() {
    need_root!();
    for (kind, image) in images() {
        let stage = Stage::new();
        let (source, out) = (image.point().join("source"), image.point().join("out"));
        two_shards(&source);
        let before = image.used();
        let (_, warned) = export(&stage, &source, &out, &[]);
        assert!(warned.is_empty(), "{kind}: {warned}");
        assert!(image.used() - before < 2 << 20, "{kind}: {before}");
        assert_eq!(shards(&out), shards(&source), "{kind}");
        assert!(tensors(&out) == tensors(&source), "{kind}");
        let one = image.point().join("one");
        let (said, warned) = export(&stage, &source, &one, &["--max-shard-size", "5GB"]);
        assert!(said.contains("shared with the source"), "{kind}: {said}");
        assert!(
            warned.contains("can share blocks with the source"),
            "{kind}: {warned}"
        );
        assert_eq!(shards(&one), ["model.safetensors"]);
        assert!(tensors(&one) == tensors(&source), "{kind}");
    }
}

/// CKPTFS_REFLINK_GIB sets the size; the test prints the seconds that the export says.
#[test]
fn a_large_file_shares_its_blocks_as_a_small_one_does() {
    need_root!();
    let size = std::env::var("CKPTFS_REFLINK_GIB").map_or(0, |text| text.parse().unwrap());
    let tensors = TENSORS.max(size << 8);
    for kind in ["xfs", "btrfs"] {
        let Some(image) = Image::new(kind, IMAGE + ((tensors as u64) << 23)) else {
            continue;
        };
        let (source, out) = (image.point().join("source"), image.point().join("out"));
        fs::create_dir(&source).unwrap();
        weights(&source.join("model.safetensors"), 0..tensors);
        fs::write(source.join("config.json"), CONFIG).unwrap();
        let before = image.used();
        let (said, _) = export(&Stage::new(), &source, &out, &[]);
        println!("{kind}: {said}");
        assert!(image.used() - before < 16 << 20, "{kind}");
    }
}

/// Where nothing can be shared, the bytes are those of a mount, without a longer header.
#[test]
fn elsewhere_everything_is_written() {
    let stage = Stage::new();
    let source = stage.other("unshared");
    checkpoint(&source);
    for (out, reflink) in [("/dev/shm", "auto"), ("", "never")] {
        let out = match out {
            "" => stage.other("plain"),
            shm => Path::new(shm).join(format!("ckptfs-test-{}", std::process::id())),
        };
        let (from, to) = (source.to_str().unwrap(), out.to_str().unwrap());
        let output = stage.run(&["export", from, to, "--reflink", reflink]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }
    let shm = Path::new("/dev/shm").join(format!("ckptfs-test-{}", std::process::id()));
    let [written, plain] = [shm.clone(), stage.other("plain")]
        .map(|folder| fs::read(folder.join("model.safetensors")).unwrap());
    fs::remove_dir_all(shm).unwrap();
    assert!(written == plain);
}
