//! Refusals when flags, config.json or an index contradict the checkpoint.

use std::fs;
use std::path::{Path, PathBuf};

use ckptfs::view::{Options, View};
use safetensors::tensor::{Dtype, TensorView};
use tempfile::TempDir;

use crate::common::hint::says_what_to_do;

fn example() -> (PathBuf, PathBuf) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/torchtitan-llama3");
    (root.join("checkpoint/step-10"), root.join("hf_assets"))
}

fn with_config() -> Options {
    Options {
        config_from: Some(example().1),
        ..Options::default()
    }
}

fn refusal(source: &Path, options: &Options) -> String {
    let line = View::open(source, options).unwrap_err().to_string();
    assert!(!line.contains('\n'), "{line}");
    assert!(says_what_to_do(&line), "nothing to do in: {line}");
    line
}

#[track_caller]
fn assert_names(line: &str, words: &[&str]) {
    for word in words {
        assert!(line.contains(word), "{word} is not in: {line}");
    }
}

/// A folder with a config of a family that no table knows, and files of safetensors with one element under each name.
fn folder(files: &[(&str, &[&str])]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(
        folder.path().join("config.json"),
        r#"{"model_type": "free"}"#,
    )
    .unwrap();
    for (file, names) in files {
        let one = || TensorView::new(Dtype::U8, vec![1], &[7]).unwrap();
        let tensors = names.iter().map(|name| (*name, one()));
        safetensors::serialize_to_file(tensors, None, &folder.path().join(file)).unwrap();
    }
    folder
}

/// Some systems leave most of Hugging Face's names as they are: such names are still Hugging Face's.
#[test]
fn names_that_a_system_shares_with_hugging_face_are_not_foreign() {
    let names = [
        "model.embed_tokens.weight",
        "model.layers.0.input_layernorm.weight",
        "model.layers.0.mlp.down_proj.weight",
        "model.layers.0.mlp.gate_proj.weight",
        "model.layers.0.mlp.up_proj.weight",
        "model.layers.0.self_attn.k_proj.weight",
        "model.layers.0.self_attn.o_proj.weight",
        "model.layers.0.self_attn.q_proj.weight",
        "model.layers.0.self_attn.v_proj.weight",
        "model.norm.weight",
    ];
    let folder = folder(&[("model.safetensors", &names)]);
    let view = View::open(folder.path(), &Options::default()).unwrap();
    assert_eq!(view.tensors.len(), names.len());
}

/// One name that only a trainer gives is enough, however many of the others are Hugging Face's.
#[test]
fn a_trainers_own_names_are_refused_by_its_name_in_a_family_without_a_table() {
    for (system, own) in [
        ("prime-rl", "model.layers.0.mlp.experts.w1"),
        ("olmo-core", "lm_head.w_out.weight"),
        ("olmo-core", "blocks.0.attention.w_out.weight"),
        ("megatron", "decoder.layers.0.mixer.in_proj.weight"),
        (
            "megatron",
            "decoder.layers.0.self_attention.linear_proj.weight",
        ),
        ("torchtitan", "layers.0.attention.qkv_linear.wqkv.weight"),
    ] {
        let names = [
            own,
            "model.layers.0.self_attn.k_norm.weight",
            "model.layers.0.self_attn.q_norm.weight",
            "model.norm.weight",
        ];
        let folder = folder(&[("model.safetensors", &names)]);
        let line = refusal(folder.path(), &Options::default());
        assert_names(&line, &[&format!("are {system}'s"), "family free"]);
    }
}

const FIRST: &str = "model-00001-of-00002.safetensors";
const SECOND: &str = "model-00002-of-00002.safetensors";

fn refusal_of_index(weight_map: &str) -> String {
    let folder = folder(&[(FIRST, &["a"]), (SECOND, &["b"])]);
    let index = folder.path().join("model.safetensors.index.json");
    fs::write(index, format!(r#"{{"weight_map": {weight_map}}}"#)).unwrap();
    refusal(folder.path(), &Options::default())
}

#[test]
fn an_index_that_names_the_wrong_shard_is_refused() {
    let line = refusal_of_index(&format!(r#"{{"a": "{SECOND}", "b": "{FIRST}"}}"#));
    assert_names(&line, &["tensor a", FIRST, SECOND, "index.json"]);
}

#[test]
fn an_index_that_names_a_tensor_twice_is_refused() {
    let line = refusal_of_index(&format!(
        r#"{{"a": "{FIRST}", "b": "{FIRST}", "b": "{SECOND}"}}"#
    ));
    assert_names(&line, &["\"b\"", "twice", "index.json"]);
}

#[test]
fn a_shard_that_the_index_does_not_name_is_refused() {
    let line = refusal_of_index(&format!(r#"{{"a": "{FIRST}"}}"#));
    assert_names(&line, &[SECOND, "index.json"]);
}

#[test]
fn a_tensor_that_the_index_does_not_name_is_refused() {
    let folder = folder(&[(FIRST, &["a", "c"]), (SECOND, &["b"])]);
    let index = folder.path().join("model.safetensors.index.json");
    let map = format!(r#"{{"weight_map": {{"a": "{FIRST}", "b": "{SECOND}"}}}}"#);
    fs::write(index, map).unwrap();
    let line = refusal(folder.path(), &Options::default());
    assert_names(&line, &["tensor c", "index.json"]);
}

#[test]
fn names_that_become_one_are_told_as_the_checkpoint_has_them() {
    let folder = folder(&[("model.safetensors", &["a._orig_mod.weight", "a.weight"])]);
    let line = refusal(folder.path(), &Options::default());
    assert_names(
        &line,
        &["both", "a._orig_mod.weight", "would become a.weight"],
    );
}

#[test]
fn a_system_that_is_not_the_checkpoints_is_refused_and_the_known_ones_listed() {
    let options = Options {
        system: Some("torchtyan".to_owned()),
        ..with_config()
    };
    let line = refusal(&example().0, &options);
    assert_names(
        &line,
        &[
            "no system is called torchtyan",
            "dcp, deepspeed, hf-sharded, huggingface, huggingface-bin, lingua",
            "megatron, meta, mistral",
            "torchtitan, torchtune, torchtune-main, verl",
        ],
    );
}

#[test]
fn a_family_that_config_json_contradicts_is_refused() {
    let options = Options {
        family: Some("qwen3".to_owned()),
        ..with_config()
    };
    assert_names(
        &refusal(&example().0, &options),
        &["model_type is llama", "qwen3"],
    );
}

fn of_meta() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/meta-mp2/source")
}

/// A copy of Meta's two files, the second under `second`, with `old` in params.json replaced.
fn meta(second: &[&str], old: &str, new: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let copy =
        |from: &str, to: &str| fs::copy(of_meta().join(from), folder.path().join(to)).unwrap();
    copy("consolidated.00.pth", "consolidated.00.pth");
    for name in second {
        copy("consolidated.01.pth", name);
    }
    let params = fs::read_to_string(of_meta().join("params.json")).unwrap();
    let changed = params.replace(old, new);
    fs::write(folder.path().join("params.json"), changed).unwrap();
    folder
}

#[test]
fn consolidated_files_that_are_missing_are_named() {
    let last = refusal(meta(&[], "", "").path(), &Options::default());
    let words = ["1 of 2 ranks are missing, consolidated.01.pth"];
    assert_names(&last, &words);
    let gaps = meta(&["consolidated.03.pth"], "", "");
    let words = ["2 of 4 ranks are missing, consolidated.01.pth, consolidated.02.pth"];
    assert_names(&refusal(gaps.path(), &Options::default()), &words);
}

#[test]
fn consolidated_files_that_are_too_many_are_counted() {
    let three = meta(&["consolidated.01.pth", "consolidated.02.pth"], "", "");
    let words = ["3 consolidated files", "2 of which"];
    assert_names(&refusal(three.path(), &Options::default()), &words);
}

#[test]
fn params_that_contradict_the_tensors_are_refused() {
    let refused = |old: &str, new: &str| {
        let folder = meta(&["consolidated.01.pth"], old, new);
        refusal(folder.path(), &Options::default())
    };
    let vocabulary = refused("\"vocab_size\": 130", "\"vocab_size\": 260");
    assert_names(&vocabulary, &["embed_tokens", "260", "params.json"]);
    let layers = refused("\"n_layers\": 2", "\"n_layers\": 3");
    assert_names(
        &layers,
        &["num_hidden_layers is 3, the tensors have 2", "params.json"],
    );
    let keys = refused("\"n_kv_heads\": 2", "\"n_kv_heads\": 1");
    assert_names(&keys, &["k_proj", "num_key_value_heads", "params.json"]);
    let width = refused("\"dim\": 32", "\"dim\": 64");
    assert_names(&width, &["wq.weight", "heads of 32 rows", "params.json"]);
}

/// Twice the heads at half the size have the same shapes, and other bytes; rope_theta changes no byte.
#[test]
fn a_config_that_contradicts_the_checkpoints_own_params_is_refused() {
    let with = |heads: u64, rope: &str| -> Result<String, String> {
        let folder = tempfile::tempdir().unwrap();
        let head_dim = 32 / heads;
        let config = format!(
            r#"{{"model_type": "llama", "hidden_size": 32, "intermediate_size": 96, "num_hidden_layers": 2, {rope},
"num_attention_heads": {heads}, "num_key_value_heads": {heads}, "head_dim": {head_dim}, "vocab_size": 130}}"#
        );
        fs::write(folder.path().join("config.json"), config).unwrap();
        let options = Options {
            config_from: Some(folder.path().to_owned()),
            ..Options::default()
        };
        let view = View::open(&of_meta(), &options).map_err(|error| error.to_string())?;
        let warnings = view.notes.into_iter().filter(|note| note.is_warning);
        Ok(warnings.map(|note| note.text).collect::<String>())
    };
    let since_5 = r#""rope_parameters": {"rope_theta": 10000}"#;
    assert_eq!(with(2, since_5), Ok(String::new()));
    let heads = ["num_attention_heads is 4", "the checkpoint itself says 2"];
    assert_names(&with(4, since_5).unwrap_err(), &heads);
    let warning = with(2, r#""rope_theta": 500000.0"#).unwrap();
    assert_names(&warning, &["rope_theta is 500000", "says 10000"]);
}

#[test]
fn flags_that_do_not_suffice_are_told_which_are_missing() {
    let heads = Options {
        heads: Some(4),
        ..Options::default()
    };
    let line = refusal(&example().0, &heads);
    assert_names(&line, &["--config-from", "--family", "--kv-heads"]);
    assert!(!line.contains("--heads N"), "{line}");
    let family = Options {
        family: Some("llama".to_owned()),
        ..Options::default()
    };
    assert_names(
        &refusal(&example().0, &family),
        &["--config-from", "--heads N"],
    );
}

#[test]
fn heads_that_only_the_command_line_tells_are_noted() {
    let options = Options {
        family: Some("llama".to_owned()),
        heads: Some(4),
        kv_heads: Some(2),
        ..Options::default()
    };
    let view = View::open(&example().0, &options).unwrap();
    let noted = |note: &str| note.contains("num_attention_heads 4, num_key_value_heads 2");
    assert!(
        view.notes
            .iter()
            .any(|note| note.is_warning && noted(&note.text))
    );
    let wrong = Options {
        kv_heads: Some(4),
        ..options
    };
    assert_names(
        &refusal(&example().0, &wrong),
        &["k_proj", "num_key_value_heads"],
    );
}

#[test]
fn a_number_of_layers_below_zero_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(example().1.join("config.json")).unwrap();
    let text = text.replace("\"num_hidden_layers\": 2", "\"num_hidden_layers\": -1");
    fs::write(folder.path().join("config.json"), text).unwrap();
    let options = Options {
        config_from: Some(folder.path().to_owned()),
        ..Options::default()
    };
    assert_names(
        &refusal(&example().0, &options),
        &["num_hidden_layers is -1"],
    );
}

#[test]
fn a_systems_names_in_a_family_without_a_table_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(
        folder.path().join("config.json"),
        r#"{"model_type": "free"}"#,
    )
    .unwrap();
    let options = Options {
        config_from: Some(folder.path().to_owned()),
        ..Options::default()
    };
    let line = refusal(&example().0, &options);
    assert_names(&line, &["tok_embeddings.weight", "free", "--mapping"]);
}
