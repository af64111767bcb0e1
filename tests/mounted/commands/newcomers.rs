//! First mistakes of a new user: each answer names what was wrong, and what to do.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::common::programs::*;
use crate::{need_fuse, need_root};

fn refused(stage: &Stage, arguments: &[&str], status: i32, words: &[&str]) {
    let output = stage.run(arguments);
    assert_eq!(output.status.code(), Some(status), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    for word in words {
        assert!(
            said.contains(word),
            "{arguments:?}: {word} is not in {said}"
        );
    }
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// A run of these saves, complete since long ago.
fn run(stage: &Stage, saves: &[&str]) {
    for save in saves {
        let folder = stage.other("run").join(save);
        fs::create_dir_all(&folder).unwrap();
        for name in ["config.json", "model.safetensors"] {
            fs::copy(stage.source().join(name), folder.join(name)).unwrap();
        }
    }
    let ancient = Command::new("find")
        .arg(stage.other("run"))
        .args(["-exec", "touch", "-d", "-1 hour", "{}", "+"])
        .status();
    assert!(ancient.unwrap().success());
}

#[test]
fn every_command_for_one_checkpoint_takes_the_latest_of_a_run() {
    let stage = Stage::new();
    for saves in [&["step-3"][..], &["step-3", "step-20"]] {
        run(&stage, saves);
        let latest = saves.last().unwrap();
        let _ = fs::remove_dir_all(stage.other("out"));
        let _ = fs::remove_file(stage.other("page.html"));
        for arguments in [
            &["export", "run", "out"][..],
            &["verify", "run"],
            &["inspect", "run", "--html", "page.html"],
            &["inspect", "run", "--tensor", "lm_head.weight"],
        ] {
            let output = stage.run(arguments);
            assert_eq!(output.status.code(), Some(0), "{output:?}");
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(
                said.contains("its latest save is taken") && said.contains(latest),
                "{said}"
            );
        }
    }
    for option in ["--average=run", "--add-delta=run=0.5"] {
        let output = stage.run(&["inspect", "source", option]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }
    need_fuse!();
    let output = stage.run(&["exec", "run", "--", "sh", "-c", "echo {}"]);
    assert!(text(&output).trim_end().ends_with("/step-20"), "{output:?}");
}

#[test]
fn a_folder_of_nothing_readable_is_no_run() {
    let stage = Stage::new();
    for name in ["a", "b"] {
        fs::create_dir_all(stage.other("lib").join(name)).unwrap();
        fs::write(
            stage.other("lib").join(name).join("model.safetensors"),
            "no header",
        )
        .unwrap();
    }
    let words = ["is no run", "model.safetensors"];
    refused(&stage, &["mount", "lib", "point"], 1, &words);
    let touched = Command::new("find")
        .arg(stage.other("lib"))
        .args(["-exec", "touch", "-d", "-1 hour", "{}", "+"])
        .status();
    assert!(touched.unwrap().success());
    refused(&stage, &["mount", "lib", "point"], 1, &words);
    for command in [&["verify", "lib"][..], &["export", "lib", "out"]] {
        refused(&stage, command, 1, &words);
    }
    refused(&stage, &["mount", "/usr/lib", "point"], 1, &["/usr/lib"]);
    // Folders of versions are no saves to come.
    fs::create_dir_all(stage.other("local/python3.11")).unwrap();
    refused(&stage, &["mount", "local", "point"], 1, &["local"]);
}

#[test]
fn wrong_arguments_are_answered_with_the_right_remedy() {
    let stage = Stage::new();
    fs::write(stage.other("page.html"), "mine").unwrap();
    refused(
        &stage,
        &["inspect", "source", "--html", "page.html"],
        3,
        &["exists already", "not there yet"],
    );
    assert_eq!(fs::read(stage.other("page.html")).unwrap(), b"mine");
    for command in [
        &["mount", "source", "point"][..],
        &["export", "source", "out"],
        &["verify", "source"],
    ] {
        let threads = [command, &["--threads", "0"]].concat();
        refused(&stage, &threads, 2, &["from 1 on"]);
        let shards = [command, &["--max-shard-size", "5"]].concat();
        refused(&stage, &shards, 2, &["5GB"]);
    }
    for command in [
        &["mount", "nowhere", "point"][..],
        &["export", "nowhere", "out"],
        &["inspect", "nowhere"],
    ] {
        refused(&stage, command, 4, &["no such file or folder", "as SOURCE"]);
    }
    refused(&stage, &["inspect", ""], 2, &["is empty"]);
    refused(
        &stage,
        &["umount", "nowhere"],
        3,
        &["no such directory", "ckptfs status"],
    );
    refused(
        &stage,
        &["inspect", "source", "--system", "foo"],
        1,
        &["no system is called foo", "torchtitan"],
    );
    let mount = text(&stage.run(&["mount", "--help"]));
    assert!(!mount.contains("--reflink"), "{mount}");
    assert!(text(&stage.run(&["export", "--help"])).contains("with --reflink"));
}

#[test]
fn a_view_of_root_is_left_to_root() {
    need_fuse!();
    need_root!();
    let stage = Stage::new();
    let served = stage.mount();
    let program = stage.copy_of_program();
    let open = fs::Permissions::from_mode(0o755);
    fs::set_permissions(stage.other(""), open).unwrap();
    let mut umount = Command::new(program);
    umount
        .arg("umount")
        .arg(stage.point())
        .uid(65_534)
        .gid(65_534);
    let output = umount.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let is_helpless = said.contains("fusermount3 (Debian");
    assert!(
        said.contains("was mounted by root; as root: ckptfs umount") || is_helpless,
        "{said}"
    );
    served.signal(libc::SIGTERM);
    assert_eq!(served.wait().0, Some(0));
}

/// An export that gets Ctrl-C once it has begun.
fn interrupted_export(stage: &Stage) -> Output {
    let mut export = Command::new(env!("CARGO_BIN_EXE_ckptfs"));
    export.args(["export", "large", "out"]);
    export
        .current_dir(stage.other(""))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut export = export.spawn().unwrap();
    let mut has_begun =
        || stage.other(".out.ckptfs-export").exists() || export.try_wait().unwrap().is_some();
    within(|| has_begun().then_some(()));
    if export.try_wait().unwrap().is_none() {
        // SAFETY: kill takes numbers alone; the child has not been waited for.
        unsafe { libc::kill(export.id() as i32, libc::SIGINT) };
    }
    export.wait_with_output().unwrap()
}

#[test]
fn a_stopped_export_says_how_it_goes_on() {
    let stage = Stage::new();
    let large = stage.other("large");
    fs::create_dir(&large).unwrap();
    fs::write(large.join("config.json"), r#"{"model_type":"free"}"#).unwrap();
    const BYTES: u64 = 1 << 30;
    let header =
        format!(r#"{{"w":{{"dtype":"U8","shape":[{BYTES}],"data_offsets":[0,{BYTES}]}}}}"#);
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    fs::write(large.join("model.safetensors"), &file).unwrap();
    let opened = fs::OpenOptions::new()
        .write(true)
        .open(large.join("model.safetensors"));
    opened.unwrap().set_len(file.len() as u64 + BYTES).unwrap();
    // On a busy machine the signal may come when all is written.
    let output = within(|| {
        fs::remove_dir_all(stage.other("out")).ok();
        let output = interrupted_export(&stage);
        (!output.status.success()).then_some(output)
    });
    assert_eq!(output.status.signal(), Some(libc::SIGINT), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("run the same command again"), "{said}");
}

#[test]
fn printed_commands_can_be_pasted_into_a_shell() {
    need_fuse!();
    let stage = Stage::new();
    let point = stage.other("it's $HOME; a point");
    fs::create_dir(&point).unwrap();
    let mounted = stage.run(&["mount", "source", point.to_str().unwrap(), "--daemon"]);
    assert_eq!(mounted.status.code(), Some(0), "{mounted:?}");
    let said = text(&mounted);
    let (_, command) = said.trim_end().split_once("); ckptfs ").unwrap();
    let command = command.strip_suffix(" unmounts").unwrap();
    let pasted = format!("{} {command}", env!("CARGO_BIN_EXE_ckptfs"));
    let done = Command::new("bash").args(["-c", &pasted]).status().unwrap();
    assert!(done.success(), "{pasted}");
}

#[test]
fn a_table_without_a_rule_is_told_from_a_wrong_config() {
    let stage = Stage::new();
    let family = |rules: &str| {
        format!(
            "[[family]]\nname = \"nova\"\nmodel_types = [\"nova\"]\ndefaults = {{ tie_word_embeddings = \"0\" }}\ntensors = [[\"a.weight\", \"n\"], [\"b.weight\", \"n\"]]\n[[system]]\nname = \"own\"\nfamilies = [\"nova\"]\nrules = [{rules}]\n"
        )
    };
    let both = r#"{ from = "x", to = "a.weight" }, { from = "y", to = "b.weight" }"#;
    fs::create_dir(stage.other("hf")).unwrap();
    fs::write(
        stage.other("hf/config.json"),
        r#"{"model_type":"nova","n":2}"#,
    )
    .unwrap();
    let header = r#"{"x":{"dtype":"F16","shape":[2],"data_offsets":[0,4]},"y":{"dtype":"F16","shape":[2],"data_offsets":[4,8]}}"#;
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend([1, 2, 3, 4, 5, 6, 7, 8]);
    fs::create_dir(stage.other("saved")).unwrap();
    fs::write(stage.other("saved/model.safetensors"), bytes).unwrap();
    let check = |more: &[&str]| {
        let words = ["mapping", "check", "table.toml", "--config-from", "hf"];
        let output = stage.run(&[&words[..], more].concat());
        (
            output.status.code(),
            text(&output),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    fs::write(stage.other("table.toml"), family(both)).unwrap();
    let (code, said, _) = check(&[]);
    assert!(
        code == Some(0) && said.contains("2 tensors, each has a rule"),
        "{said}"
    );
    let (code, said, error) = check(&["saved"]);
    assert!(
        code == Some(0) && said.contains("every name has a rule"),
        "{said}{error}"
    );
    fs::write(
        stage.other("table.toml"),
        family(r#"{ from = "x", to = "a.weight" }"#),
    )
    .unwrap();
    let (code, said, _) = check(&[]);
    assert!(
        code == Some(1) && said.contains("no rule makes b.weight"),
        "{said}"
    );
    let inspect = [
        "inspect",
        "saved",
        "--config-from",
        "hf",
        "--mapping",
        "table.toml",
    ];
    refused(
        &stage,
        &inspect,
        1,
        &["table.toml: system own has no rule in family nova for y"],
    );
    fs::write(
        stage.other("table.toml"),
        family(r#"{ from = "x", to = "c.weight" }"#),
    )
    .unwrap();
    let (_, said, _) = check(&[]);
    assert!(
        said.contains("a rule makes c.weight, which family nova has not"),
        "{said}"
    );
    let one_way =
        r#"{ from = ["x", "z"], to = "a.weight", concat = 0 }, { from = "y", to = "b.weight" }"#;
    fs::write(stage.other("table.toml"), family(one_way)).unwrap();
    let (code, said, _) = check(&[]);
    assert!(
        code == Some(0)
            && said.contains(
                "system own: x + z -> a.weight is one-way: it concatenates and has no parts"
            )
            && !said.contains("b.weight is one-way"),
        "{said}"
    );
}

/// torchtitan's rules for Llama as a system of the user's own, without those whose text has the word `without`.
fn own_llama(without: &str) -> String {
    let mut rules = vec![
        r#"{ from = "tok_embeddings.weight", to = "model.embed_tokens.weight" }"#.to_owned(),
        r#"{ from = "norm.weight", to = "model.norm.weight" }"#.to_owned(),
        r#"{ from = "(output|lm_head).weight", to = "lm_head.weight" }"#.to_owned(),
    ];
    for (from, to, more) in [
        (
            "attention[.qkv_linear].wq",
            "self_attn.q_proj",
            r#", ops = ["unrope head_dim"]"#,
        ),
        (
            "attention[.qkv_linear].wk",
            "self_attn.k_proj",
            r#", ops = ["unrope head_dim"]"#,
        ),
        ("attention[.qkv_linear].wv", "self_attn.v_proj", ""),
        ("attention.wo", "self_attn.o_proj", ""),
        ("feed_forward.w1", "mlp.gate_proj", ""),
        ("feed_forward.w3", "mlp.up_proj", ""),
        ("feed_forward.w2", "mlp.down_proj", ""),
        ("attention_norm", "input_layernorm", ""),
        ("ffn_norm", "post_attention_layernorm", ""),
    ] {
        rules.push(format!(
            r#"{{ from = "layers.{{layer}}.{from}.weight", to = "model.layers.{{layer}}.{to}.weight"{more} }}"#
        ));
    }
    rules.retain(|rule| without.is_empty() || !rule.contains(without));
    format!(
        "[[system]]\nname = \"mine\"\nfamilies = [\"llama\"]\nrules = [\n{}\n]\n",
        rules.join(",\n")
    )
}

/// Status, output and errors of `mapping check` of a table for the Llama among the examples.
fn checked_llama(stage: &Stage, table: &str, more: &[&str]) -> (Option<i32>, String, String) {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/torchtitan-llama3");
    fs::write(stage.other("part.toml"), table).unwrap();
    let hf = example.join("hf_assets").to_str().unwrap().to_owned();
    let step = example
        .join("checkpoint/step-10")
        .to_str()
        .unwrap()
        .to_owned();
    let more = more.iter().map(|word| match *word {
        "STEP" => &*step,
        word => word,
    });
    let words = ["mapping", "check", "part.toml", "--config-from", &hf];
    let words: Vec<&str> = words.into_iter().chain(more).collect();
    let output = stage.run(&words);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), text(&output), error)
}

#[test]
fn a_table_for_a_family_that_is_built_in_is_held_to_all_its_tensors() {
    let stage = Stage::new();
    for (without, missing) in [
        (
            "ffn_norm",
            "model.layers.{}.post_attention_layernorm.weight",
        ),
        ("\"norm.weight", "model.norm.weight"),
        ("lm_head", "lm_head.weight"),
        (".wq", "model.layers.{}.self_attn.q_proj.weight"),
    ] {
        let (code, said, error) = checked_llama(&stage, &own_llama(without), &[]);
        let line = format!("part.toml: system mine: no rule makes {missing} of family llama\n");
        assert_eq!((code, said), (Some(1), line), "{without}: {error}");
    }
    let only_first = own_llama("")
        .replace("layers.{layer}.ffn", "layers.0.ffn")
        .replace("model.layers.{layer}.post_att", "model.layers.0.post_att");
    let (code, said, _) = checked_llama(&stage, &only_first, &[]);
    assert!(
        code == Some(1) && said.contains("no rule makes model.layers.1.post_attention_layernorm"),
        "{said}"
    );
    let (code, said, error) = checked_llama(&stage, &own_llama(""), &[]);
    let whole = "part.toml: family llama: 21 tensors, each has a rule\n";
    assert_eq!((code, &*said), (Some(0), whole), "{error}");
}

#[test]
fn the_names_of_a_source_are_judged_by_the_system_that_the_table_defines() {
    let stage = Stage::new();
    let (code, said, error) = checked_llama(&stage, &own_llama(""), &["STEP"]);
    assert!(
        code == Some(0) && said.contains("step-10: system mine: every name has a rule, 21 tensors"),
        "{said}{error}"
    );
    let misspelled = own_llama("").replace("ffn_norm", "fnn_norm");
    let (code, said, error) = checked_llama(&stage, &misspelled, &["STEP"]);
    for layer in 0..2 {
        let line = format!(
            "step-10: system mine has no rule in family llama for layers.{layer}.ffn_norm.weight\n"
        );
        assert!(code == Some(1) && said.contains(&line), "{said}{error}");
    }
    // Faults of the table hide no names of the source.
    let (code, said, _) = checked_llama(&stage, &own_llama("ffn_norm"), &["STEP"]);
    assert!(
        code == Some(1)
            && said.contains("no rule makes model.layers.{}.post_attention")
            && said.contains("has no rule in family llama for layers.1.ffn_norm.weight"),
        "{said}"
    );
    let (code, said, _) = checked_llama(&stage, &own_llama("layers."), &["STEP"]);
    assert_eq!(said.matches("for layers.").count(), 18, "{said}");
    assert_eq!(code, Some(1));
    let (code, said, error) = checked_llama(
        &stage,
        &own_llama("ffn_norm"),
        &["STEP", "--system", "meta"],
    );
    assert!(
        code == Some(1) && said.contains("step-10: system meta: every name has a rule"),
        "{said}{error}"
    );
    let (code, _, error) = checked_llama(&stage, &own_llama(""), &["STEP", "--system", "foo"]);
    assert!(
        code == Some(1) && error.contains("no system is called foo"),
        "{error}"
    );
}

#[test]
fn of_many_names_without_a_rule_the_first_are_listed_and_the_others_counted() {
    let stage = Stage::new();
    let none = own_llama("").replace("from = \"", "from = \"other.");
    let (code, said, error) = checked_llama(&stage, &none, &["STEP"]);
    assert_eq!(code, Some(1), "{said}{error}");
    assert_eq!(
        said.matches("has no rule in family llama for ").count(),
        21,
        "{said}"
    );
    assert!(
        said.ends_with("has no rule in family llama for 1 more\n"),
        "{said}"
    );
}

#[test]
fn a_table_that_has_nothing_for_the_family_is_told() {
    let stage = Stage::new();
    let other = "[[system]]\nname = \"mine\"\nfamilies = [\"mixtral\"]\nrules = []\n";
    for table in ["", other] {
        let (code, said, error) = checked_llama(&stage, table, &[]);
        assert!(
            code == Some(1)
                && said.contains("part.toml: has nothing for family llama")
                && !said.contains("each has a rule"),
            "{said}{error}"
        );
    }
}

#[test]
fn a_file_that_is_no_table_is_told_with_a_remedy() {
    let stage = Stage::new();
    let check = |file: &str, words: &[&str]| {
        let arguments = ["mapping", "check", file, "--config-from", "source"];
        refused(&stage, &arguments, 1, words);
    };
    fs::create_dir(stage.other("folder")).unwrap();
    check("folder", &["folder: is a folder; name a table in TOML"]);
    fs::write(stage.other("latin.toml"), b"# caf\xe9\n").unwrap();
    check(
        "latin.toml",
        &["latin.toml: is no text in UTF-8; name a table in TOML"],
    );
    let empty = ["mapping", "check", "/dev/null", "--config-from", "source"];
    let empty = stage.run(&empty);
    assert_eq!(empty.status.code(), Some(1), "{empty:?}");
    let said = text(&empty);
    assert!(
        said.starts_with("/dev/null: has nothing for family llama"),
        "{said}"
    );
}

#[test]
fn the_test_script_runs_the_path_that_it_is_given_alone() {
    let stage = Stage::new();
    let script = |path: &Path, text: &str| {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    script(&stage.other("bin/cargo"), "#!/bin/sh\n");
    script(
        &stage.other("envs/base/bin/python"),
        "#!/bin/sh\necho \"$@\"\n",
    );
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tests = |words: &[&str]| {
        let path = format!("{}:/usr/bin:/bin", stage.other("bin").display());
        let mut command = Command::new(root.join("tests/run"));
        command.arg("consumers").args(words).current_dir(root);
        command
            .env("PATH", path)
            .env("CKPTFS_OFFLINE", "1")
            .env("CKPTFS_ENVS", stage.other("envs"));
        text(&command.output().unwrap())
    };
    need_fuse!();
    assert_eq!(
        tests(&["tests/consumers/daily", "-q"]),
        "-m pytest tests/consumers/daily -q\n"
    );
    assert_eq!(tests(&["-q"]), "-m pytest tests/consumers -q\n");
    // Words that happen to be names of files are no paths of tests.
    assert_eq!(
        tests(&["-k", "python"]),
        "-m pytest tests/consumers -k python\n"
    );
}
