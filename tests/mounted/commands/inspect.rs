//! `ckptfs inspect`: the tree, a tensor's bytes, the JSON that docs/inspect.md promises.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::common::programs::*;

const EMBEDDING: &str = "model.embed_tokens.weight";

/// `inspect` of the example, two layers of torchtitan on two ranks.
fn inspect(more: &[&str]) -> Output {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/torchtitan-llama3");
    let mut command = Command::new(env!("CARGO_BIN_EXE_ckptfs"));
    command.args([
        "inspect",
        "checkpoint/step-10",
        "--config-from",
        "hf_assets",
    ]);
    command.current_dir(example).args(more).output().unwrap()
}

fn said(output: Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn json(more: &[&str]) -> Value {
    serde_json::from_str(&said(inspect(&[&["--json"], more].concat()))).unwrap()
}

/// Returns the paths of all fields, such as `files[].size`. The keys of `dtypes` are data.
fn fields(value: &Value, path: &str, all: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) if path != "dtypes" => object.iter().for_each(|(key, value)| {
            let dot = if path.is_empty() { "" } else { "." };
            fields(value, &format!("{path}{dot}{key}"), all);
        }),
        Value::Array(list) if list.iter().any(Value::is_object) => list
            .iter()
            .for_each(|value| fields(value, &format!("{path}[]"), all)),
        _ => drop(all.insert(path.to_owned())),
    }
}

/// The fields in the tables of docs/inspect.md, and what type each has.
fn documented() -> Vec<(String, String)> {
    let text = include_str!("../../../docs/inspect.md");
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| {
        let (name, rest) = row.split_once("` | ").unwrap();
        let kind = rest.split(" | ").next().unwrap();
        (name.to_owned(), kind.to_owned())
    })
    .collect()
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Every value at a path such as `files[].size`.
fn values<'a>(value: &'a Value, path: &str) -> Vec<&'a Value> {
    path.split('.').fold(vec![value], |values, part| {
        let key = part.trim_end_matches("[]");
        let inner = values.into_iter().filter_map(|value| value.get(key));
        match part.ends_with("[]") {
            true => inner.flat_map(|list| list.as_array().unwrap()).collect(),
            false => inner.collect(),
        }
    })
}

#[test]
fn modules_that_differ_in_their_number_alone_are_one_line() {
    let text = said(inspect(&[]));
    let layers = text
        .lines()
        .filter(|line| line.contains("model.layers") || line.contains("layers.0-1"));
    assert!(
        text.contains("layers.0-1") && text.contains("2 alike"),
        "{text}"
    );
    assert!(
        text.contains("layers.0-1.attention.wo.weight: assemble"),
        "{text}"
    );
    assert!(text.contains("119104 parameters"), "{text}");
    assert!(layers.count() < 12, "{text}");
}

#[test]
fn a_tensor_is_told_under_the_name_that_is_stored_and_with_its_file() {
    let stage = Stage::new();
    fs::write(
        stage.source().join("config.json"),
        r#"{"model_type": "unknown"}"#,
    )
    .unwrap();
    let bytes = [0u8; 8];
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::BF16, vec![4], &bytes);
    let file = stage.source().join("model.safetensors");
    let stored = "_orig_mod.h.0.w";
    safetensors::serialize_to_file([(stored, view.unwrap())], None, &file).unwrap();
    let text = said(stage.run(&["inspect", "source", "--json"]));
    let tensor = &serde_json::from_str::<Value>(&text).unwrap()["tensors"][0];
    assert_eq!(tensor["name"], "h.0.w");
    assert_eq!(tensor["sources"], serde_json::json!([stored]));
    assert!(
        tensor["stored"][0]["file"]
            .as_str()
            .unwrap()
            .ends_with("source/model.safetensors")
    );
    let text = said(stage.run(&["inspect", "source", "--tensor", "h.0.w"]));
    assert!(text.contains(&format!("source     {stored}\n")), "{text}");
}

#[test]
fn tensors_are_found_by_pattern_and_by_their_names_in_the_checkpoint() {
    let names = |pattern: &str| {
        let found = json(&["--tensor", pattern]);
        let name = |one: &Value| one["name"].as_str().unwrap().to_owned();
        let all = found.as_array().unwrap().iter();
        all.map(name).collect::<Vec<_>>()
    };
    let layers = [0, 1].map(|layer| format!("model.layers.{layer}.self_attn.q_proj.weight"));
    assert_eq!(names("*.q_proj.weight"), layers);
    assert_eq!(names("model.layers.?.self_attn.q_proj.*"), layers);
    assert_eq!(names("tok_embeddings.weight"), [EMBEDDING]);
    let text = said(inspect(&["--tensor", "*.q_proj.weight"]));
    assert_eq!(
        text.matches("tensor     model.layers.").count(),
        2,
        "{text}"
    );
    for (wrong, hint) in [
        (
            "model.embed_token.weight",
            "did you mean model.embed_tokens.weight?",
        ),
        ("*.q_porj.weight", "inspect --json lists all"),
        (
            "model.layersX0.self_attn.q_proj.weight",
            "did you mean model.layers.0.",
        ),
        (
            "zzz",
            "the view has no tensor zzz; inspect --json lists all",
        ),
    ] {
        let output = inspect(&["--tensor", wrong]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(complaint(&output).contains(hint), "{output:?}");
    }
}

/// A tensor is told apart from others by any of type, shape and operations.
#[test]
fn layers_that_differ_stand_apart() {
    let stage = Stage::new();
    let narrow = r#"{"model_type": "unknown"}"#;
    fs::write(stage.source().join("config.json"), narrow).unwrap();
    let tensors = [("h.0.w", 2), ("h.1.w", 2), ("h.2.w", 4), ("h.3.w", 2)];
    let bytes = [0u8; 16];
    let views = tensors.map(|(name, size)| {
        let data = &bytes[..2 * size];
        let view = safetensors::tensor::TensorView::new(safetensors::Dtype::BF16, vec![size], data);
        (name, view.unwrap())
    });
    let file = stage.source().join("model.safetensors");
    safetensors::serialize_to_file(views, None, &file).unwrap();
    let text = said(stage.run(&["inspect", "source"]));
    let rows: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("BF16  ["))
        .collect();
    assert_eq!(rows.len(), 2, "{text}");
    assert!(
        rows[0].contains("0-1,3.w") && rows[0].contains("[2]"),
        "{text}"
    );
    assert!(rows[1].contains("2.w") && rows[1].contains("[4]"), "{text}");
}

#[test]
fn what_is_tied_is_said() {
    let stage = Stage::new();
    let config = stage.source().join("config.json");
    let text = fs::read_to_string(&config).unwrap();
    let path = stage.source().join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let all = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let kept = all.iter().filter(|(name, _)| *name != "lm_head.weight");
    safetensors::serialize_to_file(kept, None, &stage.other("tied")).unwrap();
    fs::rename(stage.other("tied"), &path).unwrap();
    fs::write(
        &config,
        text.replace("embeddings\": false", "embeddings\": true"),
    )
    .unwrap();
    let text = said(stage.run(&["inspect", "source"]));
    let line = "tied       lm_head.weight is model.embed_tokens.weight";
    assert!(text.lines().any(|own| own == line), "{text}");
}

#[test]
fn the_bytes_of_a_tensor_are_where_it_says() {
    let stage = Stage::new();
    let out = stage.other("out");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/torchtitan-llama3");
    let [source, config] = ["checkpoint/step-10", "hf_assets"].map(|part| folder.join(part));
    let arguments = ["export", source.to_str().unwrap(), out.to_str().unwrap()];
    let exported =
        stage.run(&[&arguments[..], &["--config-from", config.to_str().unwrap()]].concat());
    assert_eq!(exported.status.code(), Some(0), "{exported:?}");
    let tensor = json(&["--tensor", EMBEDDING]);
    let number = |value: &Value| usize::try_from(value.as_u64().unwrap()).unwrap();
    let ranges = tensor["ranges"].as_array().unwrap();
    let made: Vec<u8> = ranges
        .iter()
        .flat_map(|range| {
            let file = fs::read(range["file"].as_str().unwrap()).unwrap();
            assert_eq!(
                number(&range["end"]) - number(&range["start"]),
                number(&range["bytes"])
            );
            file[number(&range["start"])..number(&range["end"])].to_vec()
        })
        .collect();
    let offsets = values(&tensor, "stored[].offset");
    assert_eq!(offsets, values(&tensor, "ranges[].start"));
    let shown = fs::read(out.join(tensor["file"].as_str().unwrap())).unwrap();
    let start = number(&tensor["start"]);
    assert!(ranges.len() == 2 && made == shown[start..start + number(&tensor["bytes"])]);
}

#[test]
fn what_only_a_read_tells_lies_in_the_item_that_the_list_names() {
    const NAME: &str = "model.layers.0.mlp.down_proj.weight";
    let (whole, tensor) = (json(&[]), json(&["--tensor", NAME]));
    let tensors = values(&whole, "tensors[]");
    let listed = *tensors.iter().find(|one| one["name"] == NAME).unwrap();
    let number = |of: &Value, path: &str| -> Vec<Option<u64>> {
        let numbers = values(of, path).into_iter();
        numbers.map(Value::as_u64).collect()
    };
    assert_eq!(number(listed, "stored[].offset"), [None, None]);
    let offsets = number(&tensor, "stored[].offset");
    assert_eq!(offsets, number(&tensor, "ranges[].start"));
    assert!(number(listed, "stored[].item.start") < offsets);
    assert!(number(&tensor, "ranges[].end") < number(listed, "stored[].item.end"));
}

#[test]
fn the_json_has_the_documented_fields_and_no_others() {
    let whole = json(&[]);
    let tensor = json(&["--tensor", EMBEDDING]);
    let mut found = BTreeSet::new();
    fields(&whole, "", &mut found);
    let mut ranges = BTreeSet::new();
    fields(&tensor, "", &mut ranges);
    found.extend(
        ranges
            .into_iter()
            .filter(|field| field.starts_with("ranges")),
    );
    let documented = documented();
    for (name, kinds) in &documented {
        let of = if name.starts_with("ranges") {
            &tensor
        } else {
            &whole
        };
        for value in values(of, name) {
            assert!(
                kinds.split(" or ").any(|one| one == kind(value)),
                "{name}: {value}"
            );
        }
        found.remove(name);
    }
    let empty = ["tied", "dropped", "notes", "entries"].map(str::to_owned);
    found.retain(|name| !empty.contains(name));
    assert!(found.is_empty(), "not in docs/inspect.md: {found:?}");
    assert!(documented.len() > 20);
}

/// A field may be documented that this checkpoint has no value of: then another one shows it.
#[test]
fn every_documented_field_occurs() {
    let stage = Stage::new();
    let config = stage.source().join("config.json");
    fs::write(config, r#"{"model_type": "unknown"}"#).unwrap();
    let noted: Value =
        serde_json::from_str(&said(stage.run(&["inspect", "source", "--json"]))).unwrap();
    let averaged = ["inspect", "source", "--average", "source", "--json"];
    let averaged: Value = serde_json::from_str(&said(stage.run(&averaged))).unwrap();
    let (whole, tensor) = (json(&[]), json(&["--tensor", EMBEDDING]));
    for (name, _) in documented() {
        let occurs = [&whole, &tensor, &noted, &averaged]
            .iter()
            .any(|of| !values(of, &name).is_empty());
        assert!(
            occurs
                || ["tied", "dropped", "entries"]
                    .iter()
                    .any(|optional| name.starts_with(optional)),
            "{name}"
        );
    }
}

#[test]
fn a_page_overwrites_nothing() {
    let stage = Stage::new();
    let page = ["inspect", "source", "--html", "page.html"];
    assert_eq!(said(stage.run(&page)), "page.html\n");
    let first = fs::read(stage.other("page.html")).unwrap();
    let again = stage.run(&page);
    assert_eq!(again.status.code(), Some(3));
    assert!(complaint(&again).contains("page.html: exists already"));
    assert!(fs::read(stage.other("page.html")).unwrap() == first);
}

/// The only markup of a page is the page's own, and it loads nothing.
#[test]
fn names_are_no_markup_in_a_page() {
    let stage = Stage::new();
    let name = "</script><script>alert(1)</script><!--";
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::U8, vec![1], &[0]);
    let file = stage.source().join("model.safetensors");
    safetensors::serialize_to_file([(name, view.unwrap())], None, &file).unwrap();
    fs::write(
        stage.source().join("config.json"),
        r#"{"model_type": "unknown"}"#,
    )
    .unwrap();
    said(stage.run(&["inspect", "source", "--html", "page.html"]));
    let page = fs::read_to_string(stage.other("page.html")).unwrap();
    assert_eq!(page.matches("</script>").count(), 2);
    assert!(!page.contains("alert(1)</script>") && page.contains("\\u003c/script>"));
    assert!(!page.contains("http:") && !page.contains("https:") && !page.contains("innerHTML"));
}
