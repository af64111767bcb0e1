//! A config that belongs to another model, and side files that are not what they seem.

use super::make::tensors::named;
use super::scene::*;

fn with_config(config: &str) -> Scene {
    Scene::empty()
        .with("config.json", config)
        .with("model.safetensors", named(&["a"]))
}

cases! {
    73 the_config_of_another_model, "refused with what does not fit" => {
        let llama = |old, new| Scene::real("hf-bin-sharded").edited("config.json", old, new);
        shown(Scene::real("hf-bin-sharded"), &["model.embed_tokens.weight"]);
        refused(llama(r#""hidden_size": 32"#, r#""hidden_size": 64"#), &["hidden_size is 64", "embed_tokens.weight has 32"]);
        refused(llama(r#""num_hidden_layers": 2"#, r#""num_hidden_layers": 3"#), &["num_hidden_layers is 3", "layers.2."]);
        refused(llama(r#""num_hidden_layers": 2"#, r#""num_hidden_layers": 1"#), &["num_hidden_layers is 1", "layers.1."]);
        refused(llama(r#""num_hidden_layers": 2"#, r#""num_hidden_layers": 9999999999999"#), &["num_hidden_layers"]);
        refused(llama(r#""num_hidden_layers": 2"#, r#""num_hidden_layers": -2"#), &["num_hidden_layers is -2"]);
        refused(llama(r#""num_attention_heads": 2"#, r#""num_attention_heads": 0"#), &["source"]);
        refused(llama(r#""model_type": "llama""#, r#""model_type": "gpt_oss""#), &["model_type is gpt_oss", "llama"]);
    }

    74 code_beside_the_weights, "not shown; auto_map stays text that nobody follows unasked" => {
        let scene = with_config(r#"{"model_type":"free","auto_map":{"AutoModel":"modeling.Evil"}}"#);
        let answer = scene.with("modeling.py", "import os").with("setup.sh", "rm").inspect();
        assert_eq!(answer.code, Some(0));
        assert!(!answer.out.contains("modeling.py") && !answer.out.contains("setup.sh"));
    }

    75 tied_by_the_config_alone, "refused, with the way out" => {
        let scene = Scene::real("legacy-bin");
        refused(scene.edited("config.json", r#""tie_word_embeddings": false"#, r#""tie_word_embeddings": true"#), &["differ", "--config-from"]);
    }

    76 a_tokenizer_that_is_a_link, "refused; nothing there is opened" => {
        let scene = || with_config(r#"{"model_type":"free"}"#);
        for name in ["tokenizer.json", "generation_config.json", "chat_template.jinja", "vocab.txt"] {
            refused(scene().link(name, "../secret"), &["outside the checkpoint"]);
        }
        refused(scene().link("config.json", "../secret"), &["outside the checkpoint"]);
        refused(scene().with("templates/x.jinja", "").link("additional_chat_templates", "/etc"), &["outside the checkpoint"]);
    }

    77 a_config_that_is_no_json, "refused; duplicate keys pass as they are, and the last counts, as in Python" => {
        for config in [r#"{"a":Nan}"#, r#"{"a":+Infinity}"#, r#"{"a":1e999}"#, "[]", "", "{", "\u{feff}{}", "{}x"] {
            refused(with_config(config), &["config.json"]);
        }
        refused(with_config(&format!("{{\"a\":{}", "[".repeat(100_000))), &["config.json"]);
        shown(with_config(r#"{"model_type":"x","model_type":"free"}"#), &["\"family\": \"free\""]);
        shown(with_config(r#"{"model_type":"free","a":[NaN,-Infinity,Infinity]}"#), &["\"family\": \"free\""]);
        refused(Scene::new().with("model.safetensors", named(&["a"])).sparse("config.json", b"{", 1 << 30), &["too many"]);
    }

    78 a_template_that_would_run, "bytes alone, shown as they are" => {
        let scene = with_config(r#"{"model_type":"free"}"#);
        let evil = "{{ ''.__class__.__mro__[1].__subclasses__() }}{% for x in range(10**9) %}{% endfor %}";
        shown(scene.with("chat_template.jinja", evil), &["chat_template.jinja", &format!("\"size\": {}", evil.len())]);
    }
}

/// An adapter of PEFT's, with this config.
fn with_adapter_config(config: &str) -> Scene {
    let half = |part: &str| format!("base_model.model.q_proj.lora_{part}.weight");
    let weights = named(&[&half("A"), &half("B")]);
    Scene::empty()
        .with("adapter_model.safetensors", weights)
        .with("adapter_config.json", config)
}

#[test]
fn the_config_of_an_adapter_is_json_or_refused() {
    let whole = r#"{"r":1e999999,"lora_alpha":-1}"#.replace("1e999999", "99999999999");
    shown(with_adapter_config(&whole), &["adapter_config.json"]);
    for config in ["", "[]", "{", r#"{"lora_alpha":NaN}"#, r#"{"r":1e999}"#] {
        refused(with_adapter_config(config), &["adapter_config.json"]);
    }
    refused(
        with_adapter_config("").link("adapter_config.json", "../secret"),
        &["outside the checkpoint"],
    );
    let deep = format!("{{\"a\":{}", "[".repeat(100_000));
    refused(with_adapter_config(&deep), &["adapter_config.json"]);
}

#[test]
fn an_alpha_that_is_no_number_is_none() {
    for alpha in ["\"evil\"", "{}", "null", "[1]", "true"] {
        let training = format!("{{\"lora_alpha\":{alpha},\"task_type\":\"CAUSAL_LM\"}}");
        let scene = with_adapter_config("").without("adapter_config.json");
        refused(
            scene.with("lora_train_meta.json", training),
            &["tells its alpha", "--lora-alpha"],
        );
    }
}
