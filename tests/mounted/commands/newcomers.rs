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
    refused(&stage, &["mount", "/usr/lib", "point"], 1, &["/usr/lib"]);
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
}
