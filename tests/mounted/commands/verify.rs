//! `ckptfs verify`: what it finds, and the status that it ends with.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use half::bf16;
use serde_json::{Value, json};

use crate::common::programs::*;

/// The verdict and the lines of a run.
fn verify(stage: &Stage, more: &[&str]) -> (i32, String) {
    let output = stage.run(&[&["verify", "source"], more].concat());
    assert!(output.stderr.is_empty(), "{output:?}");
    (
        output.status.code().unwrap(),
        String::from_utf8(output.stdout).unwrap(),
    )
}

fn json(stage: &Stage, more: &[&str]) -> Value {
    serde_json::from_str(&verify(stage, &[more, &["--json"]].concat()).1).unwrap()
}

/// A copy of the checkpoint, its weights changed by `change`.
fn copy(stage: &Stage, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
    fs::create_dir(stage.other(name)).unwrap();
    let mut bytes = fs::read(stage.source().join("model.safetensors")).unwrap();
    change(&mut bytes);
    fs::write(stage.other(name).join("model.safetensors"), bytes).unwrap();
    fs::copy(
        stage.source().join("config.json"),
        stage.other(name).join("config.json"),
    )
    .unwrap();
}

fn replace(bytes: &mut [u8], old: &str, new: &str) {
    let at = bytes
        .windows(old.len())
        .position(|part| part == old.as_bytes())
        .unwrap();
    bytes[at..at + old.len()].copy_from_slice(new.as_bytes());
}

#[test]
fn a_good_checkpoint_is_one_line() {
    let (code, said) = verify(&Stage::new(), &[]);
    assert_eq!(code, 0, "{said}");
    assert!(
        said.starts_with("12 tensors and 1 other files read"),
        "{said}"
    );
    assert_eq!(said.lines().count(), 1);
}

#[test]
fn a_copy_is_equal() {
    let stage = Stage::new();
    copy(&stage, "copy", |_| {});
    let (code, said) = verify(&stage, &["--against", "copy"]);
    assert_eq!(
        (code, &*said),
        (0, "12 equal, 0 different, 0 missing, 0 extra\n")
    );
}

#[test]
fn one_differing_element_is_named_with_its_values() {
    let stage = Stage::new();
    // The last elements of the last tensor in the file.
    copy(&stage, "copy", |bytes| {
        let at = bytes.len() - 4;
        bytes[at..at + 2].copy_from_slice(&bf16::from_f32(2.5).to_le_bytes());
    });
    copy(&stage, "other", |bytes| {
        let at = bytes.len() - 4;
        bytes[at..at + 2].copy_from_slice(&bf16::from_f32(-1.0).to_le_bytes());
    });
    let output = stage.run(&["verify", "copy", "--against", "other"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stdout).unwrap();
    let expected = "model.norm.weight: 1 elements differ, first [510]: 2.5 is not -1; largest difference 3.5\n\
                    11 equal, 1 different, 0 missing, 0 extra\n";
    assert_eq!(said, expected);
}

#[test]
fn missing_extra_and_other_types_are_differences() {
    let stage = Stage::new();
    copy(&stage, "copy", |bytes| {
        replace(bytes, "model.norm.weight", "model.nrom.weight")
    });
    let (code, said) = verify(&stage, &["--against", "copy"]);
    assert_eq!(code, 1);
    assert!(said.contains("model.norm.weight: extra\n"), "{said}");
    assert!(said.contains("model.nrom.weight: missing\n"), "{said}");
    assert!(
        said.ends_with("11 equal, 0 different, 1 missing, 1 extra\n"),
        "{said}"
    );
    let (code, said) = verify(&stage, &["--against", "source", "--dtype", "f32"]);
    assert_eq!(code, 1);
    assert!(
        said.contains("model.norm.weight: F32 [512] is not BF16 [512]\n"),
        "{said}"
    );
}

#[test]
fn what_is_no_number_is_counted_on_request() {
    let stage = Stage::new();
    let model = stage.source().join("model.safetensors");
    let mut bytes = fs::read(&model).unwrap();
    let end = bytes.len();
    bytes[end - 2..].copy_from_slice(&bf16::NAN.to_le_bytes());
    bytes[end - 4..end - 2].copy_from_slice(&bf16::INFINITY.to_le_bytes());
    bytes[end - 1024..end - 4].fill(0);
    fs::write(&model, bytes).unwrap();
    let found = json(&stage, &["--nan"]);
    let tensors = found["tensors"].as_array().unwrap();
    let norm = tensors
        .iter()
        .find(|tensor| tensor["name"] == "model.norm.weight")
        .unwrap();
    let expected = json!({
        "name": "model.norm.weight",
        "result": "read",
        "values": {"nan": 1, "infinite": 1},
    });
    assert_eq!(*norm, expected);
    let (code, said) = verify(&stage, &["--nan"]);
    assert_eq!(code, 0);
    assert!(
        said.contains("model.norm.weight: 1 NaN, 1 infinite\n"),
        "{said}"
    );
}

#[test]
fn what_is_no_number_on_one_side_is_a_difference_of_its_own() {
    let stage = Stage::new();
    let write = |values: [bf16; 3]| {
        move |bytes: &mut Vec<u8>| {
            let at = bytes.len() - 6;
            let values = values.iter().flat_map(|value| value.to_le_bytes());
            bytes.splice(at.., values);
        }
    };
    let number = bf16::from_f32;
    copy(
        &stage,
        "here",
        write([bf16::NAN, bf16::INFINITY, number(1.0)]),
    );
    copy(
        &stage,
        "there",
        write([number(0.5), number(2.0), number(1.5)]),
    );
    copy(&stage, "nan", write([bf16::NAN; 3]));
    let compared = |other: &str| {
        let arguments = ["verify", "here", "--json", "--against", other];
        let output = stage.run(&arguments);
        assert_eq!(output.status.code(), Some(1));
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        let tensors = found["tensors"].as_array().unwrap().clone();
        let norm = tensors
            .into_iter()
            .find(|tensor| tensor["name"] == "model.norm.weight");
        norm.unwrap()
    };
    let expected = json!({
        "name": "model.norm.weight",
        "result": "different",
        "what": "elements",
        "count": 3,
        "first": [509],
        "here": "NaN",
        "there": 0.5,
        "largest": "inf",
        "nan": 1,
    });
    assert_eq!(compared("there"), expected);
    let against_nan = compared("nan");
    assert_eq!(
        (&against_nan["nan"], &against_nan["largest"]),
        (&json!(2), &Value::Null)
    );
    let said = stage.run(&["verify", "nan", "--against", "there"]);
    let said = String::from_utf8(said.stdout).unwrap();
    let line = "3 elements differ, first [509]: NaN is not 0.5; 3 are NaN on one side alone\n";
    assert!(said.contains(line), "{said}");
}

/// Copies a checkpoint of three ranks; the command that verifies it.
fn dcp(stage: &Stage) -> [String; 4] {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/dcp-uneven-w3");
    fs::create_dir(stage.other("dcp")).unwrap();
    for entry in fs::read_dir(data.join("source")).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, stage.other("dcp").join(path.file_name().unwrap())).unwrap();
    }
    let config = data.join("config").into_os_string().into_string().unwrap();
    ["verify", "dcp", "--config-from", &config].map(str::to_owned)
}

/// Changes a bit of a chunk, as a disk does: no time tells of it.
fn flip(stage: &Stage) {
    let shard = stage.other("dcp/__1_0.distcp");
    let written = fs::metadata(&shard).unwrap().modified().unwrap();
    let mut bytes = fs::read(&shard).unwrap();
    bytes[3000] ^= 1;
    fs::write(&shard, bytes).unwrap();
    let file = fs::File::options().write(true).open(&shard).unwrap();
    file.set_modified(written).unwrap();
}

/// A flipped bit in a chunk of DCP: nothing but its checksum can tell.
#[test]
fn checksums_find_what_reading_does_not() {
    let stage = Stage::new();
    let arguments = dcp(&stage);
    let arguments: Vec<&str> = arguments.iter().map(|word| &**word).collect();
    let good = stage.run(&arguments);
    assert_eq!(good.status.code(), Some(0), "{good:?}");
    let said = String::from_utf8(good.stdout).unwrap();
    assert!(said.contains("3 source files checked"), "{said}");
    flip(&stage);
    let bad = stage.run(&arguments);
    assert_eq!(bad.status.code(), Some(1));
    let said = String::from_utf8(bad.stdout).unwrap();
    let line = said.lines().next().unwrap();
    assert!(
        line.contains("__1_0.distcp") && line.contains("does not match its checksum"),
        "{said}"
    );
    assert!(line.contains("model.embed_tokens.weight"), "{said}");
}

/// The fields of docs/verify.md, each of which some finding has, and those of findings, each of which stands there.
#[test]
fn the_fields_of_a_finding_are_those_that_are_documented() {
    let stage = Stage::new();
    copy(&stage, "other", |bytes| {
        let at = bytes.len() - 4;
        bytes[at..at + 2].copy_from_slice(&bf16::NAN.to_le_bytes());
        replace(bytes, "model.norm.weight", "model.nrom.weight");
    });
    let changed = stage.other("changed");
    copy(&stage, "changed", |bytes| {
        let at = bytes.len() - 4;
        bytes[at..at + 2].copy_from_slice(&bf16::NAN.to_le_bytes());
    });
    let arguments = dcp(&stage);
    flip(&stage);
    let arguments: Vec<&str> = arguments.iter().map(|word| &**word).collect();
    let damaged = stage.run(&[&arguments, &["--json"][..]].concat());
    let outputs = [
        json(&stage, &["--nan"]),
        json(&stage, &["--average", "source"]),
        json(&stage, &["--against", "other"]),
        json(&stage, &["--against", changed.to_str().unwrap()]),
        json(&stage, &["--against", "source", "--dtype", "f32"]),
        serde_json::from_slice(&damaged.stdout).unwrap(),
    ];
    let lists = outputs
        .iter()
        .flat_map(|output| [&output["tensors"], &output["sums"]]);
    let findings = lists.flat_map(|list| list.as_array().unwrap());
    let mut fields = BTreeSet::new();
    for (field, value) in findings.flat_map(|finding| finding.as_object().unwrap()) {
        match value.as_object() {
            Some(inner) => fields.extend(inner.keys().map(|key| format!("{field}.{key}"))),
            None => drop(fields.insert(field.clone())),
        }
    }
    let text = include_str!("../../../docs/verify.md");
    let rows = text
        .lines()
        .filter_map(|line| line.strip_prefix("| `tensors[]."));
    let documented = rows.map(|row| row.split('`').next().unwrap().to_owned());
    assert_eq!(fields, documented.collect());
}

#[test]
fn a_directory_without_a_checkpoint_is_refused() {
    let stage = Stage::new();
    let output = stage.run(&["verify", "source", "--against", "point"]);
    assert_eq!(output.status.code(), Some(1));
    complaint(&output);
}

/// A head and an embedding of zeros, too large to be compared whole by a mount, and a byte of the head that no sample has.
#[test]
fn a_large_tied_head_that_differs_where_no_sample_is_fails() {
    const BYTES: u64 = 129 << 20;
    let stage = Stage::new();
    let folder = stage.other("large");
    fs::create_dir(&folder).unwrap();
    let config = r#"{"model_type":"free","tie_word_embeddings":true}"#;
    fs::write(folder.join("config.json"), config).unwrap();
    let tensor = |start: u64| json!({"dtype": "U8", "shape": [BYTES], "data_offsets": [start, start + BYTES]});
    let header = json!({"embed.weight": tensor(0), "lm_head.weight": tensor(BYTES)}).to_string();
    let file = fs::File::create(folder.join("model.safetensors")).unwrap();
    file.write_all_at(&(header.len() as u64).to_le_bytes(), 0)
        .unwrap();
    file.write_all_at(header.as_bytes(), 8).unwrap();
    file.set_len(8 + header.len() as u64 + 2 * BYTES).unwrap();
    let run = || {
        let output = stage.run(&["verify", "large"]);
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap(),
        )
    };
    let said = stage.run(&["inspect", "large"]).stdout;
    assert!(
        String::from_utf8(said)
            .unwrap()
            .contains("samples of lm_head.weight")
    );
    assert_eq!(run().0, Some(0));
    let unsampled = 8 + header.len() as u64 + BYTES + (64 << 10);
    file.write_all_at(b"x", unsampled).unwrap();
    let (code, said) = run();
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("lm_head.weight: differs from embed.weight"),
        "{said}"
    );
}
