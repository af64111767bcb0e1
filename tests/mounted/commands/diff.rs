//! `ckptfs diff`: the tensors in which two checkpoints differ, and the status that tells of it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use half::bf16;
use serde_json::{Value, json};

use crate::common::programs::*;

/// The status and the lines of a run that could compare.
fn diff(stage: &Stage, arguments: &[&str]) -> (i32, String) {
    let output = stage.run(&[&["-q", "diff"], arguments].concat());
    assert!(output.stderr.is_empty(), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    (output.status.code().unwrap(), said)
}

/// A copy of the checkpoint, the bytes of its weights changed by `change`.
fn copy(stage: &Stage, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
    fs::create_dir(stage.other(name)).unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::copy(stage.source().join(file), stage.other(name).join(file)).unwrap();
    }
    edit(stage, name, change);
}

/// Names of a family without a table are shown as they are.
fn of_a_free_family(stage: &Stage, names: &[&str]) {
    for name in names {
        let config = stage.other(name).join("config.json");
        fs::write(config, r#"{"model_type": "free"}"#).unwrap();
    }
}

fn edit(stage: &Stage, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let file = stage.other(name).join("model.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    change(&mut bytes);
    fs::write(file, bytes).unwrap();
}

/// Sets the last elements of model.norm.weight, the last tensor of the file.
fn end_in(values: &[f32]) -> impl FnOnce(&mut Vec<u8>) {
    let values: Vec<u8> = values
        .iter()
        .flat_map(|value| bf16::from_f32(*value).to_le_bytes())
        .collect();
    move |bytes| {
        let at = bytes.len() - values.len();
        bytes.splice(at.., values);
    }
}

fn replace(bytes: &mut [u8], old: &str, new: &str) {
    let mut windows = bytes.windows(old.len());
    let at = windows.position(|part| part == old.as_bytes()).unwrap();
    bytes[at..at + old.len()].copy_from_slice(new.as_bytes());
}

#[test]
fn copies_are_equal() {
    let stage = Stage::new();
    copy(&stage, "copy", |_| {});
    let expected = "12 equal, 0 different, 0 only in A, 0 only in B\n";
    assert_eq!(diff(&stage, &["source", "copy"]), (0, expected.to_owned()));
}

#[test]
fn differences_are_told_by_layer_and_tensor() {
    let stage = Stage::new();
    copy(&stage, "a", end_in(&[2.5, 1.0]));
    copy(&stage, "b", end_in(&[-1.0, f32::NAN]));
    let (code, said) = diff(&stage, &["a", "b"]);
    let expected = "model.norm: 1 of 1 tensors differ, largest difference 3.5\n  \
                    weight: 2 of 512 elements, first [510]: 2.5 is not -1; largest difference 3.5; 1 are NaN on one side alone\n\
                    11 equal, 1 different, 0 only in A, 0 only in B\n";
    assert_eq!((code, &*said), (1, expected));
    // Two tensors of one layer, of nine.
    of_a_free_family(&stage, &["a", "b"]);
    edit(&stage, "b", |bytes| {
        let (from, to) = ("layers.0.mlp.up_proj", "layers.0.mlp.up_porj");
        replace(bytes, from, to);
    });
    let (code, said) = diff(&stage, &["a", "b"]);
    for line in [
        "model.layers.0: 2 of 10 tensors differ\n",
        "  mlp.up_proj.weight: only in A, BF16 [512, 512]\n",
        "  mlp.up_porj.weight: only in B, BF16 [512, 512]\n",
        "10 equal, 1 different, 1 only in A, 1 only in B\n",
    ] {
        assert!(code == 1 && said.contains(line), "{line}{said}");
    }
}

#[test]
fn another_type_is_a_difference_and_its_numbers_are_compared() {
    let stage = Stage::new();
    // The noise of the other weights holds infinities and NaN, too.
    let exported = stage.run(&["export", "source", "wide", "--dtype", "f32"]);
    assert!(exported.status.success(), "{exported:?}");
    let (code, said) = diff(&stage, &["source", "wide"]);
    assert_eq!(code, 1);
    let line = "  weight: BF16 [512] is not F32 [512]\n";
    assert!(said.contains(line) && !said.contains("elements"), "{said}");
    assert!(
        said.ends_with("0 equal, 12 different, 0 only in A, 0 only in B\n"),
        "{said}"
    );
    copy(&stage, "one", end_in(&[1.0]));
    edit(&stage, "wide", |bytes| {
        let at = bytes.len() - 4;
        bytes[at..].copy_from_slice(&1.125f32.to_le_bytes());
    });
    let (_, said) = diff(&stage, &["one", "wide"]);
    let line = "  weight: BF16 [512] is not F32 [512]; \
                1 of 512 elements, first [511]: 1 is not 1.125; largest difference 0.125\n";
    assert!(said.contains(line), "{said}");
    // One type for both sides leaves the one element.
    let (code, said) = diff(&stage, &["one", "wide", "--dtype", "f32"]);
    assert!(code == 1 && said.ends_with("11 equal, 1 different, 0 only in A, 0 only in B\n"));
}

#[test]
fn without_values_no_weight_is_read() {
    let stage = Stage::new();
    copy(&stage, "copy", end_in(&[2.5]));
    let expected = "12 of the same type and shape, 0 different, 0 only in A, 0 only in B\n";
    let (code, said) = diff(&stage, &["--no-values", "source", "copy"]);
    assert_eq!((code, &*said), (0, expected));
    of_a_free_family(&stage, &["source", "copy"]);
    edit(&stage, "copy", |bytes| {
        replace(bytes, "model.norm", "model.nrom")
    });
    assert_eq!(diff(&stage, &["--no-values", "source", "copy"]).0, 1);
}

#[test]
fn checkpoints_of_two_systems_are_compared_under_one_set_of_names() {
    let stage = Stage::new();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/torchtitan-llama3");
    let path = |name: &str| example.join(name).to_str().unwrap().to_owned();
    let (step, hf) = (path("checkpoint/step-10"), path("hf_assets"));
    let exported = stage.run(&["export", &step, "exported", "--config-from", &hf]);
    assert!(exported.status.success(), "{exported:?}");
    let (code, said) = diff(&stage, &[&step, "exported", "--config-from", &hf]);
    let expected = "21 equal, 0 different, 0 only in A, 0 only in B\n";
    assert_eq!((code, &*said), (0, expected));
}

#[test]
fn a_side_that_cannot_be_compared_is_refused() {
    let stage = Stage::new();
    for sides in [["source", "nowhere"], ["nowhere", "source"]] {
        let output = stage.run(&[&["diff"], &sides[..]].concat());
        assert_eq!(output.status.code(), Some(4), "{output:?}");
        assert!(complaint(&output).contains("nowhere"));
    }
    let output = stage.run(&["diff", "source", "point"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    complaint(&output);
}

/// Adds the fields of a value, each with those around it.
fn fields(value: &Value, around: &str, all: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => object.iter().for_each(|(key, inner)| {
            let dot = if around.is_empty() { "" } else { "." };
            fields(inner, &format!("{around}{dot}{key}"), all);
        }),
        Value::Array(items) if items.iter().any(Value::is_object) => items
            .iter()
            .for_each(|item| fields(item, &format!("{around}[]"), all)),
        Value::Null => {}
        _ => drop(all.insert(around.to_owned())),
    }
}

#[test]
fn the_fields_are_those_that_are_documented() {
    let stage = Stage::new();
    copy(&stage, "a", end_in(&[2.5]));
    copy(&stage, "b", end_in(&[-1.0]));
    let (code, said) = diff(&stage, &["a", "b", "--json"]);
    let found: Value = serde_json::from_str(&said).unwrap();
    let expected = json!({
        "equal": false,
        "values": true,
        "equal_tensors": 11,
        "layers": [{
            "name": "model.norm",
            "tensors": 1,
            "largest": 3.5,
            "different": [{
                "name": "model.norm.weight",
                "here": {"dtype": "BF16", "shape": [512]},
                "there": {"dtype": "BF16", "shape": [512]},
                "elements": {
                    "count": 1, "first": [511], "here": 2.5, "there": -1.0, "largest": 3.5, "nan": 0,
                },
            }],
        }],
    });
    assert_eq!((code, &found), (1, &expected));
    let mut all = BTreeSet::new();
    fields(&found, "", &mut all);
    let text = include_str!("../../../docs/diff.md");
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    let documented = rows.map(|row| row.split('`').next().unwrap().to_owned());
    assert_eq!(all, documented.collect());
}
