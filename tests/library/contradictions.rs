//! Refusals of a config.json of another model name the key, its value and the value that the tensors tell.

use std::fs;
use std::path::Path;

use ckptfs::view::{Options, View};
use safetensors::tensor::{Dtype, TensorView};
use tempfile::TempDir;

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/torchtitan-llama3");

/// Replaces one text in the example's config.json, and returns the refusal.
fn said(old: &str, new: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    let text = fs::read_to_string(format!("{EXAMPLE}/hf_assets/config.json")).unwrap();
    assert!(text.contains(old), "{old}");
    fs::write(&path, text.replace(old, new)).unwrap();
    let options = Options {
        config_from: Some(folder.path().to_owned()),
        ..Options::default()
    };
    refusal(
        Path::new(&format!("{EXAMPLE}/checkpoint/step-10")),
        &options,
    )
}

fn refusal(source: &Path, options: &Options) -> String {
    let line = View::open(source, options).unwrap_err().to_string();
    assert!(!line.contains('\n'), "{line}");
    line
}

#[track_caller]
fn assert_names(line: &str, words: &[&str]) {
    for word in words {
        assert!(line.contains(word), "{word} is not in: {line}");
    }
}

#[test]
fn a_wrong_number_is_told_by_its_key() {
    for (key, right, wrong, found) in [
        ("num_hidden_layers", 2, 1, "the tensors have 2"),
        ("num_hidden_layers", 2, 5, "the tensors have 2"),
        ("hidden_size", 64, 128, "has 64"),
        ("intermediate_size", 160, 192, "has 160"),
        ("vocab_size", 256, 512, "has 256"),
    ] {
        let line = said(
            &format!("\"{key}\": {right}"),
            &format!("\"{key}\": {wrong}"),
        );
        let said = format!("{key} is {wrong}, ");
        assert_names(
            &line,
            &["config.json contradicts", &said, found, "config.json this"],
        );
        assert!(line.len() < 500, "{line}");
    }
    let heads = said("\"num_attention_heads\": 4", "\"num_attention_heads\": 8");
    assert_names(
        &heads,
        &[
            "num_attention_heads * head_dim is 128",
            "num_attention_heads 8",
            "q_proj.weight has 64",
        ],
    );
    let keys = said("\"num_key_value_heads\": 2", "\"num_key_value_heads\": 1");
    assert_names(
        &keys,
        &[
            "num_key_value_heads * head_dim is 16",
            "k_proj.weight has 32",
        ],
    );
    let size = said("\"head_dim\": 16", "\"head_dim\": 48");
    assert_names(
        &size,
        &[
            "wq.weight",
            "no heads of 48 rows",
            "config.json says head_dim 48",
        ],
    );
}

#[test]
fn every_contradiction_is_listed() {
    let right =
        "\"hidden_size\": 64,\n  \"initializer_range\": 0.02,\n  \"intermediate_size\": 160";
    let line = said(right, "\"hidden_size\": 96, \"intermediate_size\": 99");
    assert_names(&line, &["hidden_size is 96", "intermediate_size is 99"]);
}

#[test]
fn a_condition_that_no_tensor_bears_out_is_told_by_its_key() {
    let line = said("\"attention_bias\": false", "\"attention_bias\": true");
    assert_names(
        &line,
        &[
            "by attention_bias (attention_bias true) there should be model.layers.0.self_attn.q_proj.bias",
        ],
    );
}

#[test]
fn a_family_that_does_not_have_these_names_is_told_with_those_that_do() {
    for family in ["qwen3", "gemma2", "mixtral", "phi3", "deepseek_v3"] {
        let line = said(
            "\"model_type\": \"llama\"",
            &format!("\"model_type\": \"{family}\""),
        );
        let said = format!("config.json says model_type is {family}, ");
        assert_names(&line, &[&said, "named as those of llama", "--config-from"]);
    }
}

#[test]
fn a_config_without_a_model_type_is_asked_for_it() {
    let line = said("\"model_type\": \"llama\",", "");
    assert_names(
        &line,
        &[
            "config.json has no model_type",
            "llama or mistral",
            "--family",
        ],
    );
}

/// A folder with a config.json and tensors of bytes in a safetensors file.
fn folder(config: &str, tensors: &[(&str, &[usize])]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    if !config.is_empty() {
        fs::write(folder.path().join("config.json"), config).unwrap();
    }
    let bytes = |name: &str, shape: &[usize]| vec![name.len() as u8; shape.iter().product()];
    let data: Vec<_> = tensors
        .iter()
        .map(|(name, shape)| (*name, *shape, bytes(name, shape)))
        .collect();
    let views = data.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::U8, shape.to_vec(), bytes).unwrap();
        (*name, view)
    });
    let file = folder.path().join("model.safetensors");
    safetensors::serialize_to_file(views, None, &file).unwrap();
    folder
}

/// A llama of one layer with two heads of six rows for queries and one for keys, eight wide.
fn small(o_proj: &'static [usize]) -> Vec<(&'static str, &'static [usize])> {
    vec![
        ("model.embed_tokens.weight", &[10, 8]),
        ("model.layers.0.self_attn.q_proj.weight", &[12, 8]),
        ("model.layers.0.self_attn.k_proj.weight", &[6, 8]),
        ("model.layers.0.self_attn.v_proj.weight", &[6, 8]),
        ("model.layers.0.self_attn.o_proj.weight", o_proj),
        ("model.layers.0.mlp.gate_proj.weight", &[5, 8]),
        ("model.layers.0.mlp.up_proj.weight", &[5, 8]),
        ("model.layers.0.mlp.down_proj.weight", &[8, 5]),
        ("model.layers.0.input_layernorm.weight", &[8]),
        ("model.layers.0.post_attention_layernorm.weight", &[8]),
        ("model.norm.weight", &[8]),
        ("lm_head.weight", &[10, 8]),
    ]
}

fn stated(heads: u64, kv_heads: Option<u64>) -> Options {
    Options {
        family: Some("llama".to_owned()),
        heads: Some(heads),
        kv_heads,
        ..Options::default()
    }
}

#[test]
fn the_size_of_a_head_is_that_of_the_rows() {
    let folder = folder("", &small(&[8, 12]));
    for kv_heads in [None, Some(1)] {
        let view = View::open(folder.path(), &stated(2, kv_heads)).unwrap();
        assert_eq!(view.tensors.len(), 12);
    }
}

#[test]
fn heads_that_do_not_fit_the_rows_are_refused() {
    let folder = folder("", &small(&[8, 12]));
    let odd = refusal(folder.path(), &stated(5, Some(1)));
    assert_names(&odd, &["num_attention_heads 5", "q_proj.weight", "12 rows"]);
    let keys = refusal(folder.path(), &stated(2, Some(2)));
    assert_names(
        &keys,
        &[
            "num_key_value_heads * head_dim is 12",
            "k_proj.weight has 6",
            "--kv-heads",
        ],
    );
}

/// Twice the heads at half the size have the same shapes, and other bytes.
#[test]
fn another_config_than_the_one_beside_the_weights_must_be_of_the_same_model() {
    let config = |heads: u64| {
        format!(
            r#"{{"model_type": "llama", "hidden_size": 8, "num_attention_heads": {heads}, "num_key_value_heads": {},
"head_dim": {}, "intermediate_size": 5, "num_hidden_layers": 1, "vocab_size": 10}}"#,
            heads / 2,
            12 / heads
        )
    };
    let with = |heads: u64| {
        let other = folder(&config(heads), &[]);
        let options = Options {
            config_from: Some(other.path().to_owned()),
            ..Options::default()
        };
        View::open(folder(&config(2), &small(&[8, 12])).path(), &options)
    };
    assert!(with(2).is_ok());
    let line = with(4).unwrap_err().to_string();
    assert_names(
        &line,
        &[
            "num_attention_heads is 4",
            "the checkpoint itself says 2",
            "--config-from",
        ],
    );
}

#[test]
fn a_tensor_of_another_shape_than_the_rest_is_told_apart_from_a_wrong_config() {
    let config = r#"{"model_type": "llama", "hidden_size": 8, "num_attention_heads": 2, "num_key_value_heads": 1,
"head_dim": 6, "intermediate_size": 5, "num_hidden_layers": 1, "vocab_size": 10}"#;
    assert!(View::open(folder(config, &small(&[8, 12])).path(), &Options::default()).is_ok());
    let line = refusal(folder(config, &small(&[8, 7])).path(), &Options::default());
    assert_names(
        &line,
        &[
            "o_proj.weight is [8, 7], config.json says [8, 12]",
            "other tensors",
        ],
    );
    assert!(!line.contains("contradicts"), "{line}");
}

#[test]
fn a_layer_past_the_last_is_a_prediction_module_only_with_its_own_parts() {
    let dense = r#"{"model_type": "deepseek_v3", "hidden_size": 4, "num_attention_heads": 1, "q_lora_rank": null,
"kv_lora_rank": 2, "qk_rope_head_dim": 2, "qk_nope_head_dim": 2, "v_head_dim": 2, "intermediate_size": 3, "moe_intermediate_size": 3,
"first_k_dense_replace": 9, "n_routed_experts": 0, "num_nextn_predict_layers": 1, "vocab_size": 5, "num_hidden_layers": LAYERS}"#;
    let names = |layers: usize, module: bool| {
        let mut all: Vec<(String, &'static [usize])> = vec![
            ("model.embed_tokens.weight".to_owned(), &[5, 4]),
            ("model.norm.weight".to_owned(), &[4]),
            ("lm_head.weight".to_owned(), &[5, 4]),
        ];
        let own: [(&str, &'static [usize]); 9] = [
            ("input_layernorm.weight", &[4]),
            ("post_attention_layernorm.weight", &[4]),
            ("mlp.gate_proj.weight", &[3, 4]),
            ("mlp.up_proj.weight", &[3, 4]),
            ("mlp.down_proj.weight", &[4, 3]),
            ("self_attn.q_proj.weight", &[4, 4]),
            ("self_attn.kv_a_layernorm.weight", &[2]),
            ("self_attn.kv_a_proj_with_mqa.weight", &[4, 4]),
            ("self_attn.kv_b_proj.weight", &[4, 2]),
        ];
        for layer in 0..layers {
            all.extend(own.map(|(name, shape)| (format!("model.layers.{layer}.{name}"), shape)));
            all.push((
                format!("model.layers.{layer}.self_attn.o_proj.weight"),
                &[4, 2],
            ));
        }
        if module {
            all.push((
                format!("model.layers.{}.eh_proj.weight", layers - 1),
                &[4, 8],
            ));
        }
        all
    };
    let open = |layers: usize, config: usize, module: bool| {
        let names = names(layers, module);
        let names: Vec<(&str, &[usize])> = names
            .iter()
            .map(|(name, shape)| (&**name, *shape))
            .collect();
        let folder = folder(&dense.replace("LAYERS", &config.to_string()), &names);
        View::open(folder.path(), &Options::default()).map_err(|error| error.to_string())
    };
    assert_eq!(open(2, 2, false).map(|_| ()), Ok(()));
    assert_eq!(open(2, 1, true).map(|_| ()), Ok(()));
    let line = open(2, 1, false).unwrap_err();
    assert_names(
        &line,
        &[
            "num_hidden_layers 1",
            "there should be model.layers.1.eh_proj.weight",
        ],
    );
}

/// Up to 0.6.1 torchtune pairs Gemma 2's norms otherwise than its main branch, which alone writes such folders.
#[test]
fn norms_that_two_versions_pair_otherwise_are_asked_for_where_the_later_one_may_have_saved() {
    let config = r#"{"model_type": "gemma2", "hidden_size": 8, "num_attention_heads": 2, "num_key_value_heads": 1,
"head_dim": 6, "intermediate_size": 5, "num_hidden_layers": 1, "vocab_size": 10}"#;
    let folder = folder(
        config,
        &[
            ("tok_embeddings.weight", &[10, 8]),
            ("layers.0.attn.q_proj.weight", &[12, 8]),
            ("layers.0.attn.k_proj.weight", &[6, 8]),
            ("layers.0.attn.v_proj.weight", &[6, 8]),
            ("layers.0.attn.output_proj.weight", &[8, 12]),
            ("layers.0.mlp.w1.weight", &[5, 8]),
            ("layers.0.mlp.w3.weight", &[5, 8]),
            ("layers.0.mlp.w2.weight", &[8, 5]),
            ("layers.0.sa_norm.scale", &[8]),
            ("layers.0.sa_scale.scale", &[8]),
            ("layers.0.mlp_norm.scale", &[8]),
            ("layers.0.mlp_scale.scale", &[8]),
            ("norm.scale", &[8]),
        ],
    );
    let named = |name: &str| {
        let path = folder.path().join(name);
        fs::create_dir(&path).unwrap();
        for file in ["config.json", "model.safetensors"] {
            fs::copy(folder.path().join(file), path.join(file)).unwrap();
        }
        path
    };
    let (step, epoch) = (named("step_30"), named("epoch_0"));
    assert!(View::open(&epoch, &Options::default()).is_ok());
    let line = refusal(&step, &Options::default());
    assert_names(&line, &["--system torchtune ", "--system torchtune-main"]);
    for system in ["torchtune", "torchtune-main"] {
        let options = Options {
            system: Some(system.to_owned()),
            ..Options::default()
        };
        assert!(View::open(&step, &options).is_ok());
    }
    fs::write(epoch.join("recipe_state.pt"), "").unwrap();
    assert_names(&refusal(&epoch, &Options::default()), &["torchtune-main"]);
}
