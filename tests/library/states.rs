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
fn a_slice_of_a_flat_parameter_is_refused_in_any_format() {
    let state = state("llama", &[""], &["model.layers.0._flat_param"]);
    let error = View::open(state.path(), &Options::default()).unwrap_err();
    let line = error.to_string();
    assert!(line.contains("FULL_STATE_DICT"), "{line}");
}

#[test]
fn a_weight_beside_the_models_own_parts_is_not_left_out() {
    let state = state("llama", &[""], &["extra.weight"]);
    let error = View::open(state.path(), &Options::default())
        .unwrap_err()
        .to_string();
    assert!(error.contains("extra.weight"), "{error}");
}

/// Names of a class that no table lists, as `save_pretrained` writes them.
const BERT: [&str; 9] = [
    "bert.embeddings.word_embeddings.weight",
    "bert.embeddings.LayerNorm.weight",
    "bert.encoder.layer.0.attention.self.query.weight",
    "bert.encoder.layer.0.attention.output.dense.weight",
    "bert.encoder.layer.1.attention.self.query.weight",
    "bert.encoder.layer.1.output.LayerNorm.weight",
    "bert.pooler.dense.weight",
    "classifier.weight",
    "classifier.bias",
];

/// The view of tensors of these names, whose config.json names a class.
fn view_of(model_type: &str, class: &str, names: &[String]) -> Result<View, String> {
    let folder = tempfile::tempdir().unwrap();
    let bytes = [0; 4];
    let tensor = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![1], &bytes);
    let tensor = tensor.unwrap();
    let all = names.iter().map(|name| (name.clone(), tensor.clone()));
    let file = folder.path().join("model.safetensors");
    safetensors::serialize_to_file(all, None, &file).unwrap();
    let config = format!(r#"{{"model_type": "{model_type}", "architectures": ["{class}"]}}"#);
    fs::write(folder.path().join("config.json"), config).unwrap();
    View::open(folder.path(), &Options::default()).map_err(|error| error.to_string())
}

fn names_in(view: &View) -> Vec<String> {
    let tensors = view.tensors.iter();
    let mut names: Vec<String> = tensors.map(|tensor| tensor.name.to_string()).collect();
    names.sort();
    names
}

/// The tensors that are shown of these names, or the refusal.
fn names_of(names: &[String]) -> Result<Vec<String>, String> {
    let view = view_of("bert", "BertForSequenceClassification", names)?;
    Ok(names_in(&view))
}

fn above(root: &str) -> Vec<String> {
    BERT.map(|name| format!("{root}{name}")).to_vec()
}

/// The names with `new` in the place of `old`.
fn with(old: &str, new: &str) -> Vec<String> {
    BERT.map(|name| name.replace(old, new)).to_vec()
}

fn beside(mut names: Vec<String>, others: &[&str]) -> Vec<String> {
    names.extend(others.iter().map(|other| (*other).to_owned()));
    names
}

#[test]
fn damaged_names_are_put_right_or_refused_with_the_nearest() {
    let mut own = BERT.map(str::to_owned).to_vec();
    own.sort();
    let right = [
        above(""),
        above("model."),
        above("net."),
        above("module.model."),
        above("trainer.policy.actor."),
        above("_orig_mod."),
        with("layer.", "layer._orig_mod."),
        with("layer.", "layer._checkpoint_wrapped_module."),
        with("attention.", "attention._odd_wrapper."),
        with("bert.", "bert.module."),
        beside(above("model."), &["criterion.weight", "metric.confmat"]),
        beside(above("model."), &["loss_weights"]),
        beside(above(""), &["v_head.summary.weight"]),
        beside(above(""), &["bert.embeddings.position_ids"]),
        beside(
            above(""),
            &["bert.encoder.layer.0.attention.self.query._extra_state"],
        ),
        [above("model."), above("ema.")].concat(),
        [above("model."), above("ema.module.model.")].concat(),
        [above("state.model."), above("state.ema_model.")].concat(),
        above("ema.shadow."),
    ];
    for names in right {
        assert_eq!(names_of(&names), Ok(own.clone()), "{names:?}");
    }
    let refused = [
        (
            with("self.query", "self.quary"),
            "attention.self.query.weight",
        ),
        (
            with("encoder.layer", "encoder.layers"),
            "bert.encoder.layer.N",
        ),
        (with("LayerNorm", "layer_norm"), "bert."),
        (
            beside(above(""), &["bert.encoder.layer.0.adapter.down.weight"]),
            "nearest",
        ),
        (
            beside(above(""), &["encoder.layer.0.odd.weight"]),
            "nearest",
        ),
        (
            beside(above("model."), &["model.bert.odd.weight"]),
            "nearest",
        ),
        (with("bert.", "roberta."), "bert."),
        (with("bert.", "bart."), "bert."),
        ([above("a."), above("b.")].concat(), "a and b"),
        ([above("actor."), above("critic.")].concat(), "--entry"),
        (
            [
                "transformer.h.0.attn.c_attn.weight",
                "transformer.wte.weight",
            ]
            .map(str::to_owned)
            .to_vec(),
            "nearest",
        ),
        (
            ["transformer.h.0.attn.qkv.weight", "transformer.wte.weight"]
                .map(str::to_owned)
                .to_vec(),
            "litgpt",
        ),
        (
            ["layers.0.attention.wq.weight", "tok_embeddings.weight"]
                .map(str::to_owned)
                .to_vec(),
            "meta",
        ),
        (
            [
                "model.layers.0.self_attn.q_proj.weight",
                "model.embed_tokens.weight",
            ]
            .map(str::to_owned)
            .to_vec(),
            "nearest",
        ),
        (with(".", "/"), "nearest"),
    ];
    for (names, said) in refused {
        let line = names_of(&names).expect_err(&format!("{names:?}"));
        assert!(line.contains(said), "{said} is not in {line}");
        assert!(!line.contains('\n'), "{line}");
    }
}

/// Names of classes that lack the attribute `model` which their family's other classes have.
const BARE: [(&str, &str, &[&str]); 3] = [
    (
        "whisper",
        "WhisperForAudioClassification",
        &[
            "classifier.weight",
            "encoder.conv1.weight",
            "encoder.layers.0.self_attn.k_proj.weight",
            "projector.weight",
        ],
    ),
    (
        "m2m_100",
        "M2M100Model",
        &[
            "decoder.layers.0.fc1.weight",
            "encoder.layers.0.fc1.weight",
            "shared.weight",
        ],
    ),
    (
        "opt",
        "OPTModel",
        &[
            "decoder.embed_tokens.weight",
            "decoder.layers.0.self_attn.k_proj.weight",
        ],
    ),
];

#[test]
fn the_class_of_config_json_is_shown_below_its_familys_own_attribute() {
    for (model_type, class, own) in BARE {
        let below = |root: &str| -> Vec<String> {
            own.iter().map(|name| format!("{root}{name}")).collect()
        };
        for state in [
            below("model."),
            beside(below("model."), &["class_weights"]),
            beside(below("net."), &["class_weights"]),
            [below("model."), below("ema.")].concat(),
        ] {
            let view = view_of(model_type, class, &state).unwrap();
            assert_eq!(names_in(&view), own, "{class} {state:?}");
        }
    }
}

#[test]
fn a_head_beside_the_base_model_that_config_json_names_is_shown_with_it() {
    let own = BERT.map(str::to_owned);
    let view = view_of("bert", "BertModel", &own).unwrap();
    assert_eq!(view.tensors.len(), own.len());
    assert!(says(&view, &["BertModel", "BertFor"]));
}

/// Returns whether a warning holds these words.
fn says(view: &View, words: &[&str]) -> bool {
    let mut warnings = view.notes.iter().filter(|note| note.is_warning);
    warnings.any(|note| words.iter().all(|word| note.text.contains(word)))
}

#[test]
fn names_of_another_class_than_config_jsons_are_shown_with_a_warning_where_its_layers_are_there() {
    let body = BERT.iter().filter(|name| !name.starts_with("classifier"));
    let body: Vec<String> = body.map(|name| (*name).to_owned()).collect();
    let bare: Vec<String> = { body.iter() }
        .map(|name| name.replace("bert.", ""))
        .collect();
    let masked = beside(body.clone(), &["cls.predictions.transform.dense.weight"]);
    let classifier = "BertForSequenceClassification";
    for (names, other) in [
        (&body, "BertModel"),
        (&bare, "BertModel"),
        (&masked, "BertFor"),
    ] {
        let view = view_of("bert", classifier, names).unwrap();
        assert!(
            says(&view, &[classifier, other, "classifier"]),
            "{:?}",
            view.notes
        );
    }
    let view = view_of("bert", classifier, &BERT.map(str::to_owned)).unwrap();
    assert!(!says(&view, &["config.json"]), "{:?}", view.notes);
}

#[test]
fn names_of_another_class_that_leave_layers_without_weights_are_refused() {
    let questions = [
        "transformer.layers.0.mlp.up_proj.weight",
        "qa_outputs.weight",
    ];
    let encoder = [
        "encoder.block.1.layer.0.SelfAttention.k.weight",
        "shared.weight",
    ];
    for (model_type, class, other, names) in [
        (
            "llama",
            "LlamaForCausalLM",
            "LlamaForQuestionAnswering",
            questions,
        ),
        (
            "t5",
            "T5ForConditionalGeneration",
            "T5EncoderModel",
            encoder,
        ),
    ] {
        let line = view_of(model_type, class, &names.map(str::to_owned)).unwrap_err();
        assert!(line.contains(class) && line.contains(other), "{line}");
    }
}

#[test]
fn models_that_config_json_composes_of_two_pass_unchecked() {
    let names = [
        "encoder.embeddings.LayerNorm.weight",
        "decoder.transformer.h.0.crossattention.c_attn.weight",
        "decoder.transformer.wte.weight",
    ];
    let (family, class) = ("vision-encoder-decoder", "VisionEncoderDecoderModel");
    let view = view_of(family, class, &names.map(str::to_owned)).unwrap();
    assert_eq!(view.tensors.len(), names.len());
    assert!(says(&view, &["unchecked"]));
    // No composed model has such names.
    let below = names.map(|name| format!("student.{name}"));
    let error = view_of(family, class, &below).unwrap_err();
    assert!(error.contains("student."), "{error}");
}

/// The names of four whole layers of a T5's encoder, or what is said of those that are kept.
fn layers_of(count: u64, keeps: impl Fn(&str) -> bool) -> Result<Vec<String>, String> {
    let parts = ["SelfAttention.k", "SelfAttention.q", "SelfAttention.v"];
    let parts = parts.iter().chain(&["SelfAttention.o", "layer_norm"]);
    let layer = |number: u64| {
        let parts = parts.clone();
        parts.map(move |part| format!("encoder.block.{number}.layer.0.{part}.weight"))
    };
    let first = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight";
    let others = [first, "shared.weight"].map(str::to_owned);
    let mut names: Vec<String> = (0..4).flat_map(layer).chain(others).collect();
    names.retain(|name| keeps(name));
    let values = format!(r#"t5", "num_layers": {count}, "num_decoder_layers": {count}, "x": ""#);
    view_of(&values, "T5EncoderModel", &names).map(|view| names_in(&view))
}

#[test]
fn a_layer_too_few_or_too_many_or_a_tensor_of_one_that_is_missing_is_refused() {
    assert_eq!(layers_of(4, |_| true).map(|names| names.len()), Ok(22));
    for (count, missing, said) in [
        (4, "block.2.", "block.2 is"),
        (4, "block.3.", "num_layers"),
        (5, "none", "num_layers"),
        (
            4,
            "block.1.layer.0.SelfAttention.k",
            "block.1.layer.0.SelfAttention.k",
        ),
        (
            4,
            "block.2.layer.0.SelfAttention.v",
            "block.2.layer.0.SelfAttention.v",
        ),
    ] {
        let line = layers_of(count, |name| !name.contains(missing)).unwrap_err();
        assert!(line.contains(said) && line.contains("missing"), "{line}");
    }
    let line = layers_of(3, |_| true).unwrap_err();
    assert!(
        line.contains("block has 4 layers") && line.contains("num_layers is 3"),
        "{line}"
    );
    let names = with(
        "encoder.layer.0.attention.output.dense.weight",
        "pooler.dense.bias",
    );
    let names: Vec<String> = { names.into_iter() }
        .filter(|name| name != "bert.pooler.dense.weight")
        .collect();
    let line = names_of(&names).unwrap_err();
    assert!(
        line.contains("bert.pooler.dense.weight is missing"),
        "{line}"
    );
}
