//! Training states that hold more than a model.

use std::fs;
use std::path::Path;

use ckptfs::view::{Options, View};
use safetensors::SafeTensors;
use tempfile::TempDir;

const NONE: &[&str] = &[];

/// Weights of a Llama whose names, each spelled in every way that is given, lie beside other tensors.
fn state(model_type: &str, ways: &[&str], others: &[impl AsRef<str>]) -> TempDir {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/dcp-uneven-w3");
    let weights = fs::read(data.join("expected.safetensors")).unwrap();
    let weights = SafeTensors::deserialize(&weights).unwrap();
    let (_, one) = weights.iter().next().unwrap();
    let mut all: Vec<_> = others
        .iter()
        .map(|name| (name.as_ref().to_owned(), one.clone()))
        .collect();
    for way in ways {
        all.extend(
            weights
                .iter()
                .map(|(name, tensor)| (format!("{way}{name}"), tensor)),
        );
    }
    let folder = tempfile::tempdir().unwrap();
    safetensors::serialize_to_file(all, None, &folder.path().join("model.safetensors")).unwrap();
    let config = fs::read_to_string(data.join("config/config.json")).unwrap();
    let config = config.replace("\"llama\"", &format!("\"{model_type}\""));
    fs::write(folder.path().join("config.json"), config).unwrap();
    folder
}

fn shown(state: &TempDir) -> (Vec<String>, Vec<String>) {
    let view = View::open(state.path(), &Options::default()).unwrap();
    let names = view.tensors.iter().map(|tensor| tensor.name.to_string());
    let warnings = view.notes.into_iter().filter(|note| note.is_warning);
    (names.collect(), warnings.map(|note| note.text).collect())
}

#[test]
fn the_model_of_a_state_is_shown_and_what_stands_beside_it_is_named() {
    for model_type in ["llama", "free"] {
        let (alone, _) = shown(&state(model_type, &[""], NONE));
        for above in ["", "state."] {
            let others = ["trainer.loss", "tokens_seen", "ema.lm_head.weight"];
            let others = others.map(|name| format!("{above}{name}"));
            let state = state(model_type, &[&format!("{above}model.")], &others);
            let (names, warnings) = shown(&state);
            assert_eq!(names, alone, "{model_type} {above}");
            let named = |other: &String| warnings.iter().any(|text| text.contains(other));
            assert!(others.iter().all(named), "{warnings:?}");
        }
    }
}

#[test]
fn two_models_in_one_state_are_refused() {
    let state = state("llama", &["model.", "state_dict."], NONE);
    let error = View::open(state.path(), &Options::default())
        .unwrap_err()
        .to_string();
    assert!(error.contains("model and state_dict"), "{error}");
}

#[test]
fn a_weight_beside_the_models_own_parts_is_not_left_out() {
    let state = state("llama", &[""], &["extra.weight"]);
    let error = View::open(state.path(), &Options::default())
        .unwrap_err()
        .to_string();
    assert!(error.contains("extra.weight"), "{error}");
}
