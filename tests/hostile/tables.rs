//! Mapping tables and configs that are small to write and endless to follow.

use super::make::tensors::named;
use super::scene::*;

/// A checkpoint of the tensor `a` of the family `nova`, looked at with a table of its own.
fn with_table(table: &str) -> Scene {
    let scene = Scene::empty().with("config.json", r#"{"model_type":"nova"}"#);
    let scene = scene.with("model.safetensors", named(&["a"]));
    scene
        .with("table.toml", table)
        .asked("--mapping", "table.toml")
}

/// A table whose family has that tensor in this shape, and these defaults.
fn with_family(shape: &str, defaults: &str) -> Scene {
    let family = "[[family]]\nname = \"nova\"\nmodel_types = [\"nova\"]";
    let tensors = format!("tensors = [[\"a\", \"{shape}\"]]");
    with_table(&format!(
        "{family}\n{tensors}\ndefaults = {{ tie_word_embeddings = \"0\", {defaults} }}"
    ))
}

fn with_pattern(pattern: &str) -> Scene {
    let system = "[[system]]\nname = \"nova\"\nfamilies = [\"*\"]";
    with_table(&format!(
        "{system}\nrules = [{{ from = \"{pattern}\", to = \"b\" }}]"
    ))
}

#[test]
fn expressions_that_nest_too_deep_are_refused() {
    shown(with_family("(1 + 1) * 2", "x = \"y\""), &["\"a\""]);
    for shape in [
        "(".repeat(80_000),
        "not ".repeat(50_000),
        "1+".repeat(80_000),
    ] {
        refused(
            with_family(&shape, "x = \"1\""),
            &["table.toml", "words, more than"],
        );
    }
}

#[test]
fn numbers_that_tell_each_other_must_not_both_be_missing() {
    let lingua = r#"{"dim":8,"n_layers":1,"weight_tying":true}"#;
    let scene = Scene::real("meta-mp2").with("params.json", lingua);
    refused(scene, &["params.json, for head_dim", "missing"]);
    let double = |i: i32| format!("z{i} = \"z{} + z{}\"", i + 1, i + 1);
    let doubling: Vec<String> = (0..60).map(double).collect();
    let circles = "x = \"x\", y = \"1 - w\", w = \"y\"";
    for shape in ["x", "y", "z0"] {
        let scene = with_family(shape, &format!("{circles}, {}", doubling.join(", ")));
        refused(scene, &["missing, and so is what could tell it"]);
    }
}

#[test]
fn patterns_for_endless_names_are_refused() {
    shown(with_pattern("[a.](b|c)"), &["\"a\""]);
    refused(
        with_pattern(&"[a]".repeat(40)),
        &["table.toml", "more than 64 names"],
    );
    refused(
        with_pattern(&"(a|b|c|d)".repeat(8)),
        &["table.toml", "more than 64 names"],
    );
    refused(
        with_pattern(&"(a)".repeat(50_000)),
        &["table.toml", "bytes, more than"],
    );
}

#[test]
fn a_table_that_never_ends_is_refused() {
    refused(
        with_table("").sparse("table.toml", b"", 4 << 30),
        &["table.toml", "more than"],
    );
    refused(with_table(&"[".repeat(200_000)), &["table.toml"]);
    let zeros = with_table("").link("table.toml", "/dev/zero");
    refused(zeros, &["table.toml", "more than"]);
}

#[test]
fn lists_that_are_gone_through_for_each_tensor_are_short() {
    let config = |count: usize| {
        let listed = vec!["0"; count].join(",");
        format!(
            r#"{{"model_type":"qwen3_moe","num_hidden_layers":2048,"mlp_only_layers":[{listed}],"hidden_size":8,
            "num_experts":2,"num_attention_heads":2,"num_key_value_heads":2,"head_dim":4,"vocab_size":9,
            "moe_intermediate_size":4,"intermediate_size":4}}"#
        )
    };
    let one = |config: String| {
        let tensors = named(&["model.layers.0.input_layernorm.weight"]);
        Scene::empty()
            .with("config.json", config)
            .with("model.safetensors", tensors)
    };
    refused(
        one(config(1_000_000)),
        &["mlp_only_layers lists 1000000 numbers"],
    );
    refused(
        one(config(2_000)),
        &["num_hidden_layers is 2048, the tensors have 1"],
    );
}

#[test]
fn files_of_values_are_small() {
    let model = || Scene::new().with("model.safetensors", named(&["a"]));
    let numbers = "0,".repeat((4 << 19) - 50);
    let config = format!(r#"{{"model_type":"free","x":[{numbers}0]}}"#);
    shown(model().with("config.json", config), &["\"a\""]);
    let large = |name| model().sparse(name, b"{", 5 << 20);
    refused(large("config.json"), &["config.json", "too many"]);
    refused(large("params.json"), &["params.json", "more than"]);
}
