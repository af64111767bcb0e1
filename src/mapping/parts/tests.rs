//! Uses of parts, and the faults of their tables.

use std::fs;

use super::super::Tables;

/// The rules of the one system of a table, or the error of the table.
fn rules(text: &str) -> std::result::Result<Vec<String>, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("own.toml");
    fs::write(&path, text).unwrap();
    let tables = Tables::load(Some(&path)).map_err(|error| error.to_string())?;
    let systems = tables.own_systems();
    Ok(systems
        .flat_map(|system| system.rules.iter().map(ToString::to_string))
        .collect())
}

fn refusal(text: &str) -> String {
    rules(text).unwrap_err()
}

const GATED: &str = r#"
[[part]]
name = "gated"
with = { of = "mlp" }
rules = [
  { from = "$at.w1.weight", to = "model.$of.gate_proj.weight" },
  { from = "$at.w3.weight", to = "model.$of.up_proj.weight" },
]
"#;

fn system(rules: &str) -> String {
    format!("{GATED}[[system]]\nname = \"nova\"\nfamilies = [\"llama\"]\nrules = [{rules}]\n")
}

#[test]
fn a_use_stands_for_the_list_of_its_part() {
    let text = system(
        r#"{ from = "a", to = "b" }, { use = "gated", at = "x.y" }, { use = "gated", at = "z", of = "other" }"#,
    );
    let expected = [
        "a -> b",
        "x.y.w1.weight -> model.mlp.gate_proj.weight",
        "x.y.w3.weight -> model.mlp.up_proj.weight",
        "z.w1.weight -> model.other.gate_proj.weight",
        "z.w3.weight -> model.other.up_proj.weight",
    ];
    assert_eq!(rules(&text).unwrap(), expected);
}

#[test]
fn parts_use_parts_those_of_the_program_too() {
    let nested = "[[part]]\nname = \"outer\"\nrules = [{ use = \"gated\", at = \"$of.in\" }]\n";
    let text = format!(
        "{nested}{}",
        system(r#"{ use = "outer", of = "x" }, { use = "megatron-qk-norms", to = "t" }"#)
    );
    let rules = rules(&text).unwrap();
    assert_eq!(rules[0], "x.in.w1.weight -> model.mlp.gate_proj.weight");
    assert_eq!(
        rules[2],
        "decoder.layers.self_attention.q_layernorm.weight -> t.self_attn.q_norm.weight"
    );
}

#[test]
fn tables_take_what_they_have_not_themselves() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("own.toml");
    let family = |defaults: &str| {
        format!(
            "[[part]]\nname = \"heads\"\ndefaults = {{ head_dim = \"64\", bias = \"0\" }}\n[[family]]\nname = \"nova\"\nmodel_types = [\"nova\"]\ndefaults = {{ {defaults} }}\n"
        )
    };
    fs::write(&path, family(r#"use = "heads", head_dim = "128""#)).unwrap();
    let tables = Tables::load(Some(&path)).unwrap();
    let family = tables.own_families().next().unwrap();
    let defaults: Vec<String> = family
        .defaults
        .iter()
        .map(|(key, value)| format!("{key} {value}"))
        .collect();
    assert_eq!(defaults, ["bias 0", "head_dim 128"]);
}

#[test]
fn a_fault_is_told_with_its_line_system_family_and_rule() {
    let wrong = system(r#"{ use = "gated", at = "x" }"#)
        .replace("\"model.$of.up_proj.weight\"", "\"model.up.{layer\"");
    let told = refusal(&wrong);
    for word in [
        "own.toml: line 7: system nova, family llama: rules x.w3.weight: ",
        "{layer",
    ] {
        assert!(told.contains(word), "{told}");
    }
    let of_the_program = refusal(&system(r#"{ use = "megatron-qk-norms", to = "a{" }"#));
    assert!(
        of_the_program.contains("line 12: system nova, family llama: rules decoder.layers"),
        "{of_the_program}"
    );
    for (rules, words) in [
        (
            r#"{ use = "gated" }"#,
            "line 6: system nova, family llama: nothing says what $at of \"$at.w1.weight\" is",
        ),
        (
            r#"{ use = "gate", at = "x" }"#,
            "line 12: system nova, family llama: there is no part gate",
        ),
        (
            r#"{ use = "gated", at = "x", other = "y" }"#,
            "part gated does not speak of $other",
        ),
    ] {
        let told = refusal(&system(rules));
        assert!(told.contains(words), "{told}");
    }
    let drop = system("").replace("rules = []", "drop = [{ use = \"gated\", at = \"x\" }]");
    assert!(refusal(&drop).contains("part gated has no list drop"));
    assert!(refusal(&format!("{GATED}{GATED}")).contains("there are two parts gated"));
}

#[test]
fn circles_and_floods_are_refused() {
    let circle = "[[part]]\nname = \"a\"\nrules = [{ use = \"b\" }]\n[[part]]\nname = \"b\"\nrules = [{ use = \"a\" }]\n";
    assert!(refusal(&format!("{circle}{}", system(r#"{ use = "a" }"#))).contains("in a circle"));
    let uses = |name: &str| vec![format!("{{ use = \"{name}\" }}"); 60].join(", ");
    let part =
        |name: &str, list: String| format!("[[part]]\nname = \"{name}\"\nrules = [{list}]\n");
    let flood = [
        part("a", uses("b")),
        part("b", uses("c")),
        part("c", uses("d")),
        part("d", String::new()),
    ]
    .concat();
    let told = refusal(&format!("{flood}{}", system(&uses("a"))));
    assert!(told.contains("more than 32768 entries"), "{told}");
}
