//! Laws of the pass over the names of a state.

use std::borrow::Cow;
use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn tensors(names: &[&str]) -> Vec<SourceTensor> {
    let tensor = |name: &&str| SourceTensor::new(*name, Vec::new());
    names.iter().map(tensor).collect()
}

/// A family whose names are those of a small Llama.
fn is_llamas(names: &[Cow<'_, str>], _: bool) -> Vec<bool> {
    let is_own = |name: &Cow<'_, str>| {
        let form = form_of(name).0;
        matches!(
            &*form,
            "model.embed_tokens.weight"
                | "model.layers.{}.q.weight"
                | "model.norm.weight"
                | "lm_head.weight"
        )
    };
    names.iter().map(is_own).collect()
}

const LLAMA: [&str; 5] = [
    "model.embed_tokens.weight",
    "model.layers.0.q.weight",
    "model.layers.1.q.weight",
    "model.norm.weight",
    "lm_head.weight",
];

fn below_each(prefixes: &[&str]) -> Vec<String> {
    let each = |prefix: &&str| LLAMA.map(|name| format!("{prefix}{name}"));
    prefixes.iter().flat_map(each).collect()
}

fn found(
    names: &[String],
    dictionaries: &[&str],
    entry: Option<&str>,
    is_known: bool,
) -> Result<Normalised> {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let dictionaries: BTreeSet<String> = dictionaries.iter().map(|key| (*key).to_owned()).collect();
    let state = State {
        tensors: tensors(&names),
        dictionaries: Cow::Owned(dictionaries),
        entry,
        keeps_roots: false,
    };
    normalise(state, is_known.then_some(&is_llamas))
}

fn names(tensors: &[SourceTensor]) -> Vec<&str> {
    tensors.iter().map(|tensor| &*tensor.name).collect()
}

#[test]
fn any_root_goes_and_what_stands_beside_it_is_told() {
    let mut all = below_each(&["backbone."]);
    all.push("criterion.weight".to_owned());
    let found = found(&all, &[], None, true).unwrap();
    assert_eq!(names(&found.model), LLAMA);
    assert_eq!(names(&found.beside), ["criterion.weight"]);
    assert_eq!(found.prefix, "backbone.");
}

#[test]
fn a_copy_of_the_model_stands_beside_it_unless_it_is_asked_for() {
    let all = below_each(&["state.model.", "state.ema.shadow."]);
    for (entry, prefix) in [(None, "state.model."), (Some("state.ema"), "shadow.")] {
        let found = found(&all, &[], entry, true).unwrap();
        assert_eq!(names(&found.model), LLAMA);
        assert_eq!(found.prefix, prefix);
        assert_eq!(found.beside.len(), LLAMA.len());
    }
    let line = found(&all, &[], Some("emma"), true)
        .unwrap_err()
        .to_string();
    assert!(
        line.contains("no entry emma") && line.contains("state"),
        "{line}"
    );
}

#[test]
fn two_models_are_refused_with_their_entries() {
    let line = found(&below_each(&["actor.", "critic."]), &[], None, true).unwrap_err();
    let line = line.to_string();
    assert!(
        line.contains("actor and critic") && line.contains("--entry"),
        "{line}"
    );
}

#[test]
fn a_copy_is_never_shown_for_a_model_that_is_not_understood() {
    let mut all = below_each(&["ema."]);
    all.extend((0..9).map(|i| format!("model.odd.part{i}.weight")));
    assert!(found(&all, &[], None, true).is_err());
}

#[test]
fn wrappers_that_are_not_known_go_where_then_all_names_are() {
    let all: Vec<String> = LLAMA
        .iter()
        .map(|name| name.replace("layers.", "layers._fp32_params."))
        .collect();
    assert_eq!(names(&found(&all, &[], None, true).unwrap().model), LLAMA);
    let all: Vec<String> = LLAMA
        .iter()
        .map(|name| name.replace("q.", "odd.q."))
        .collect();
    assert_ne!(names(&found(&all, &[], None, true).unwrap().model), LLAMA);
}

#[test]
fn state_that_is_never_a_weight_and_added_heads_are_told_apart() {
    let mut all: Vec<String> = LLAMA.map(str::to_owned).to_vec();
    all.push("model.layers.0.q._extra_state".to_owned());
    all.push("model.layers.0.rotary_emb.cos_cached".to_owned());
    all.push("v_head.summary.weight".to_owned());
    let found = found(&all, &[], None, true).unwrap();
    assert_eq!(names(&found.model), LLAMA);
    assert_eq!(found.buffers.len(), 2);
    assert_eq!(names(&found.beside), ["v_head.summary.weight"]);
}

#[test]
fn a_foreign_layer_stays_with_the_model_so_that_it_is_refused() {
    let mut all: Vec<String> = LLAMA.map(str::to_owned).to_vec();
    all.push("encoder.layer.0.weight".to_owned());
    let found = found(&all, &[], None, true).unwrap();
    assert_eq!(found.model.len(), all.len());
}

#[test]
fn weights_of_modules_that_are_called_as_trainings_are_kept() {
    let all = [
        "step",
        "embed.weight",
        "loops.0.weight",
        "scheduler.weight",
        "head.weight",
    ];
    let all: Vec<String> = all.map(str::to_owned).to_vec();
    let found = found(&all, &[], None, false).unwrap();
    assert_eq!(names(&found.model), all);
}

#[test]
fn the_dictionary_with_the_bulk_of_the_tensors_is_a_model_that_no_family_tells() {
    let all = [
        "model.shared.weight",
        "model.block.0.weight",
        "best_loss",
        "ema.shared.weight",
        "ema.block.0.weight",
    ];
    let all: Vec<String> = all.map(str::to_owned).to_vec();
    let found = found(&all, &["model.", "ema."], None, false).unwrap();
    assert_eq!(names(&found.model), ["shared.weight", "block.0.weight"]);
    assert_eq!(found.beside.len(), 3);
}

#[test]
fn a_name_that_is_not_known_stands_beside_the_model_only_in_another_dictionary() {
    let mut all = below_each(&["model."]);
    all.push("model.model.odd.weight".to_owned());
    all.push("step".to_owned());
    all.push("other.odd.weight".to_owned());
    let dictionaries = ["model.", "other."];
    let state = found(&all, &dictionaries, None, true).unwrap();
    assert!(names(&state.model).contains(&"model.odd.weight"));
    assert_eq!(names(&state.beside), ["step", "other.odd.weight"]);
    // The family knows these names with the dictionary's key in front.
    let base = ["model.embed_tokens.weight", "model.odd.weight", "a.b", "c"].map(str::to_owned);
    let state = found(&base, &["model.", "a."], None, true).unwrap();
    assert_eq!(names(&state.model), base[..2]);
    assert_eq!(names(&state.beside), base[2..]);
}

#[test]
fn a_copy_is_never_shown_for_an_original_of_its_size() {
    for dictionaries in [&["model.", "ema."][..], &[]] {
        let mut all = below_each(&["model.", "ema."]);
        all[0].push_str("_x");
        let state = found(&all, dictionaries, None, true).unwrap();
        assert_eq!(state.prefix, "model.");
        assert_eq!(state.copy.as_deref(), Some("ema"));
        assert_eq!(state.model.len(), LLAMA.len());
        assert_eq!(
            found(&all, dictionaries, Some("ema"), true)
                .unwrap()
                .model
                .len(),
            LLAMA.len()
        );
    }
    let mut all = below_each(&["best.", "last."]);
    all[0].push_str("_x");
    let line = found(&all, &[], None, true).unwrap_err().to_string();
    assert!(line.contains("last and best"), "{line}");
}

#[test]
fn a_model_in_two_places_is_refused() {
    let half: Vec<String> = { LLAMA.iter().enumerate() }
        .map(|(i, name)| match i % 2 {
            0 => format!("net.{name}"),
            _ => (*name).to_owned(),
        })
        .collect();
    assert!(found(&half, &[], None, true).is_err());
    for above in ["head.", "lm_head."] {
        let mut all = below_each(&["net."]);
        all.pop();
        all.push(format!("{above}lm_head.weight"));
        let line = found(&all, &[], None, true).unwrap_err().to_string();
        assert!(line.contains(&format!("{above}lm_head.weight")), "{line}");
    }
}

#[test]
fn a_wrapper_goes_only_where_all_names_have_it_and_torchs_own_anywhere() {
    let shown = |all: &[&str]| {
        let all: Vec<String> = all.iter().map(|name| (*name).to_owned()).collect();
        let state = found(&all, &[], None, false).unwrap();
        let names: Vec<String> = state
            .model
            .iter()
            .map(|tensor| tensor.name.to_string())
            .collect();
        names
    };
    let one = ["module.weight", "embed.weight"];
    assert_eq!(shown(&one), one);
    assert_eq!(
        shown(&["module._orig_mod.a.b", "module._orig_mod.c"]),
        ["a.b", "c"]
    );
    assert_eq!(
        shown(&["a._checkpoint_wrapped_module.b", "c.d"]),
        ["a.b", "c.d"]
    );
}

#[test]
fn entries_are_those_that_may_be_named() {
    for outer in ["", "module.", "_orig_mod."] {
        let mut all = below_each(&[&format!("{outer}model."), &format!("{outer}ema.")]);
        all.push("step".to_owned());
        let state = found(&all, &[], None, true).unwrap();
        let entries = state.entries(LLAMA.len());
        let listed: Vec<&str> = entries.iter().map(|entry| &*entry.name).collect();
        assert_eq!(listed, ["model", "ema"]);
        for entry in listed {
            assert_eq!(
                names(&found(&all, &[], Some(entry), true).unwrap().model),
                LLAMA
            );
        }
    }
}

#[test]
fn an_entry_may_be_named_with_the_keys_that_hold_everything() {
    let all = below_each(&["model.", "ema."]);
    let mut held: Vec<SourceTensor> = all
        .iter()
        .map(|name| SourceTensor::new(format!("state.{name}"), Vec::new()))
        .collect();
    let mut dictionaries = ["state.", "state.model.", "state.ema."]
        .map(str::to_owned)
        .into();
    below_shared(&mut held, &mut dictionaries);
    for entry in ["ema", "state.ema", "state.ema."] {
        let state = State {
            tensors: held.clone(),
            dictionaries: Cow::Borrowed(&dictionaries),
            entry: Some(entry),
            keeps_roots: false,
        };
        assert_eq!(
            names(&normalise(state, Some(&is_llamas)).unwrap().model),
            LLAMA,
            "{entry}"
        );
    }
}

#[test]
fn dictionaries_inside_an_entry_are_told_from_modules() {
    let all: Vec<String> = [
        "callbacks.model.a",
        "callbacks.model.b",
        "callbacks.ema.a",
        "callbacks.ema.b",
        "x.y",
    ]
    .map(str::to_owned)
    .into();
    let dictionaries = ["callbacks.", "callbacks.model.", "callbacks.ema."];
    let state = found(&all, &dictionaries, Some("callbacks"), false).unwrap();
    assert_eq!(names(&state.model), ["a", "b"]);
    let modules = ["callbacks.net.a", "callbacks.head.b", "x.y"].map(str::to_owned);
    let state = found(&modules, &["callbacks."], Some("callbacks"), false).unwrap();
    assert_eq!(names(&state.model), ["net.a", "head.b"]);
}

/// The rest of names, and of the keys of dictionaries, below those that hold everything.
fn inside(all: &[&str], dictionaries: &[&str]) -> (Vec<String>, Vec<String>) {
    let mut all = tensors(all);
    let mut dictionaries = dictionaries.iter().map(|key| (*key).to_owned()).collect();
    below_shared(&mut all, &mut dictionaries);
    let own = names(&all).into_iter().map(str::to_owned);
    (own.collect(), dictionaries.into_iter().collect())
}

#[test]
fn dictionaries_that_hold_everything_are_no_parts_of_names() {
    let all = ["state_dict.model.a", "state_dict.model.b"];
    assert_eq!(inside(&all, &["state_dict."]).0, ["model.a", "model.b"]);
    let both = ["state_dict.", "state_dict.model."];
    assert_eq!(inside(&all, &both).0, ["a", "b"]);
    assert_eq!(inside(&all, &[]).0, all);
    assert_eq!(inside(&["net.a", "net.b"], &["net."]).0, ["a", "b"]);
    assert_eq!(
        inside(&["net.bert.a"], &["net.", "net.bert."]).0,
        ["bert.a"]
    );
    let split = ["model.a", "ema.a"];
    assert_eq!(inside(&split, &["ema.", "model."]).0, split);
    let nested = ["app.model.a", "app.ema.a"];
    let keys = ["app.", "app.ema.", "app.model."];
    assert_eq!(inside(&nested, &keys).1, ["ema.", "model."]);
    assert_eq!(inside(&[], &["model."]).0.len(), 0);
}

#[test]
fn roots_are_shared_by_all_names() {
    assert_eq!(
        shared_roots(&["model.model.a", "model.model.b"]),
        ["", "model.", "model.model."]
    );
    assert_eq!(shared_roots(&["model.a", "lm_head.b"]), [""]);
}

proptest! {
    /// Every tensor of a state is the model's, or stands beside it: none is lost, whatever it is called.
    #[test]
    fn no_tensor_is_lost(all in prop::collection::hash_set("[a-d_]{1,2}(\\.[a-d0-2]{1,2}){0,4}", 1..40), is_known: bool) {
        let all: Vec<String> = all.into_iter().collect();
        if let Ok(found) = found(&all, &["a.", "b."], None, is_known) {
            let count = found.model.len() + found.beside.len() + found.buffers.len();
            prop_assert_eq!(count, all.len());
        }
    }
}
