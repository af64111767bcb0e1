//! Real files with damage: whatever a byte says, a reader answers with tensors or with an error, and soon.

use std::fs;
use std::path::{Path, PathBuf};

use ckptfs::checkpoint::formats::torch_file::TorchFile;
use ckptfs::checkpoint::open;
use ckptfs::error::Result;
use ckptfs::source::SourceFile;
use ckptfs::tensor::{Tensor, pieces};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name)
}

/// Where damage is done: `count` places spread over `length` bytes, the same in every run.
fn places(length: usize, count: usize) -> impl Iterator<Item = usize> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    std::iter::repeat_with(move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) as usize % length
    })
    .take(count)
}

/// Plans a read of the whole tensor, which finds what is located on the first touch.
fn touch(tensor: &Tensor) -> Result<()> {
    pieces(tensor, 0..tensor.shape().elements(), &mut |_| Ok(()))
}

fn torch_file(bytes: &[u8], path: &Path) -> Result<usize> {
    fs::write(path, bytes).unwrap();
    let found = TorchFile::open(SourceFile::open(path)?)?.tensors(&|_| true)?;
    Ok(found.iter().filter(|(_, value)| value.is_ok()).count())
}

/// A fixture's folder in a place of its own, so that its files can be damaged.
fn copy(name: &str) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(data(name).join("source")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::copy(&path, root.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    root
}

const TORCH_FILES: [&str; 4] = [
    "hf-bin-sharded/source/pytorch_model-00001-of-00004.bin",
    "legacy-bin/source/pytorch_model.bin",
    "meta-mp2/source/consolidated.00.pth",
    "verl-fsdp2-w2/source/model_world_size_2_rank_0.pt",
];

#[test]
fn a_cut_torch_file_is_refused() {
    let root = tempfile::tempdir().unwrap();
    for name in TORCH_FILES {
        let bytes = fs::read(data(name)).unwrap();
        let path = root.path().join("cut");
        assert!(torch_file(&bytes, &path).unwrap() > 0, "{name}");
        for length in places(bytes.len(), 50).chain([0, 1, bytes.len() - 1]) {
            assert!(
                torch_file(&bytes[..length], &path).is_err(),
                "{name} at {length}"
            );
        }
    }
}

#[test]
fn a_torch_file_with_a_wrong_byte_never_stops_the_reader() {
    let root = tempfile::tempdir().unwrap();
    for name in TORCH_FILES {
        let bytes = fs::read(data(name)).unwrap();
        let structure = bytes.len().min(8192);
        for place in places(structure, 300).chain(places(bytes.len(), 50)) {
            let mut damaged = bytes.clone();
            damaged[place] = damaged[place].wrapping_add(1 + place as u8 % 7);
            let _ = torch_file(&damaged, &root.path().join("damaged"));
        }
    }
}

#[test]
fn metadata_with_a_wrong_byte_never_stops_the_reader() {
    let root = copy("dcp-uneven-w3");
    let path = root.path().join(".metadata");
    let bytes = fs::read(&path).unwrap();
    for place in places(bytes.len(), 300) {
        let mut damaged = bytes.clone();
        damaged[place] = damaged[place].wrapping_add(1 + place as u8 % 7);
        fs::write(&path, damaged).unwrap();
        let _ = open(root.path(), None);
    }
    fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    assert!(open(root.path(), None).is_err());
}

#[test]
fn a_wrong_byte_in_a_chunk_is_an_error_of_its_reads_alone() {
    let root = copy("dcp-uneven-w3");
    let path = root.path().join("__1_0.distcp");
    let bytes = fs::read(&path).unwrap();
    for place in places(bytes.len(), 40) {
        let mut damaged = bytes.clone();
        damaged[place] ^= 0x55;
        // As a new file: written in place it would be part of a later save.
        fs::remove_file(&path).unwrap();
        fs::write(&path, damaged).unwrap();
        let checkpoint = open(root.path(), None).unwrap();
        for tensor in checkpoint.tensors.iter().flat_map(|tensor| &tensor.parts) {
            let _ = touch(tensor);
        }
    }
}

#[test]
fn a_missing_data_file_or_rank_is_named() {
    for (fixture, file, word) in [
        ("dcp-uneven-w3", "__2_0.distcp", "__2_0.distcp is missing"),
        ("dcp-uneven-w3", ".metadata", "no .metadata"),
        (
            "verl-fsdp2-w2",
            "model_world_size_2_rank_1.pt",
            "model_world_size_2_rank_1.pt",
        ),
    ] {
        let root = copy(fixture);
        fs::remove_file(root.path().join(file)).unwrap();
        let error = open(root.path(), None).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn a_cut_data_file_is_refused_without_a_read() {
    let root = copy("dcp-uneven-w3");
    let path = root.path().join("__0_0.distcp");
    let size = fs::metadata(&path).unwrap().len();
    fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(size / 2)
        .unwrap();
    let error = open(root.path(), None).unwrap_err().to_string();
    assert!(error.contains("incomplete"), "{error}");
}
