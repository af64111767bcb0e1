//! Metadata that takes more memory than there is: an error of its save, and of no other.

use std::fs::{self, File};
use std::io::Read;
use std::process::Command;

use ckptfs::checkpoint::{self, Opening};
use ckptfs::error::Error;
use ckptfs::run::Run;
use ckptfs::source::Budget;

use super::scene::*;
use crate::need_fuse;

/// A save whose `.metadata` has so many bytes, and takes no disk.
fn bloated(scene: &Scene, name: &str, bytes: u64) {
    fs::create_dir(scene.step(name)).unwrap();
    for (file, size) in [("__0_0.distcp", 2 * bytes), (".metadata", bytes)] {
        let file = File::create(scene.step(name).join(file)).unwrap();
        file.set_len(size).unwrap();
    }
}

#[test]
fn what_exceeds_the_budget_is_refused_before_it_is_read() {
    let scene = Scene::of(&["step-1"]);
    bloated(&scene, "step-2", 9 << 20);
    fs::write(scene.step("step-2/.metadata"), vec![b'N'; 9 << 20]).unwrap();
    let index = project("tests/data/hf-bin-sharded/source");
    for (source, limit) in [
        (scene.step("step-2"), 8 << 20),
        (scene.step("step-1"), 2000),
        (index, 2000),
    ] {
        let budget = Budget::of(limit);
        let opening = Opening {
            budget: budget.clone(),
            ..Opening::default()
        };
        let error = checkpoint::open_with(&source, &opening).unwrap_err();
        assert!(matches!(error, Error::Memory { .. }), "{error}");
        let line = error.to_string();
        assert!(line.contains("--metadata-memory"), "{line}");
        assert_eq!(budget.taken(), 0, "{line}");
    }
}

/// Memory for metadata of the documents below, each of which has a third of it as bytes.
const LIMIT: usize = 72 << 20;
const DOCUMENT: usize = LIMIT / 3;

/// Addresses of the program beside its metadata.
const OWN: usize = 96 << 20;

/// A safetensors file with this header and a byte of data.
fn with_header(json: &str) -> Vec<u8> {
    let length = (json.len() as u64).to_le_bytes();
    [&length[..], json.as_bytes(), b"x"].concat()
}

/// A pickle that repeats `operation`.
fn repeating(operation: &[u8]) -> Vec<u8> {
    [
        b"\x80\x02",
        &operation.repeat(DOCUMENT / operation.len())[..],
        b".",
    ]
    .concat()
}

/// Files of a checkpoint that take far more memory than bytes where a reader believes them.
fn bloated_files() -> Vec<(&'static str, Vec<u8>)> {
    const TENSOR: &str = r#""dtype":"U8","data_offsets":[0,1]"#;
    let (header, index) = ("model.safetensors", "model.safetensors.index.json");
    let ones = ["1"; DOCUMENT / 2].join(",");
    let text = "x".repeat(DOCUMENT);
    let escapes = r"\u200b".repeat(DOCUMENT / 6);
    let many = |entry: &dyn Fn(usize) -> String| {
        let entries: Vec<String> = (0..DOCUMENT / 24).map(entry).collect();
        entries.join(",")
    };
    let mut files = vec![
        (
            header,
            with_header(&format!(r#"{{"w":{{"shape":[{ones}],{TENSOR}}}}}"#)),
        ),
        (header, with_header(&format!(r#"{{"w":"{text}"}}"#))),
        (header, with_header(&format!(r#"{{"w":"{escapes}"}}"#))),
        (
            header,
            with_header(&format!(r#"{{"{text}":{{"shape":[1],{TENSOR}}}}}"#)),
        ),
        (
            header,
            with_header(&format!(r#"{{"w":{{"shape":[1],"{text}":1}}}}"#)),
        ),
        (
            header,
            with_header(&format!("{{{}}}", many(&|n| format!(r#""{n}":{{}}"#)))),
        ),
        (
            header,
            with_header(&format!(
                r#"{{"__metadata__":{{{}}}}}"#,
                many(&|n| format!(r#""{n}":"""#))
            )),
        ),
        (index, format!(r#"{{"weight_map":"{text}"}}"#).into()),
        (
            index,
            format!(r#"{{"weight_map":{{"{escapes}":1}}}}"#).into(),
        ),
        (index, format!(r#"{{"metadata":[{ones}]}}"#).into()),
        (
            index,
            format!(
                r#"{{"weight_map":{{{}}}}}"#,
                many(&|n| format!(r#""{n}":"m{n}""#))
            )
            .into(),
        ),
    ];
    let operations: [&[u8]; 12] = [
        b"(",
        b"]",
        b"}",
        b")",
        b"N",
        b"K\x01",
        b"X\x01\0\0\0a",
        b"Nq\x01",
        b"2",
        b"\x8f",
        b"G\0\0\0\0\0\0\0\0",
        b"ccollections\nOrderedDict\n)R",
    ];
    files.extend(operations.map(|operation| (".metadata", repeating(operation))));
    files
}

#[test]
fn no_document_takes_more_memory_than_its_budget() {
    let addresses = (LIMIT + OWN) / 1024;
    let line = format!(r#"ulimit -v {addresses}; exec "$0" "$@""#);
    for (name, bytes) in bloated_files() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(name), &bytes).unwrap();
        fs::write(
            folder.path().join("config.json"),
            r#"{"model_type":"free"}"#,
        )
        .unwrap();
        if name == ".metadata" {
            let data = File::create(folder.path().join("__0_0.distcp")).unwrap();
            data.set_len(1 << 30).unwrap();
        }
        let mut inspect = Command::new("sh");
        inspect.args(["-c", &line, env!("CARGO_BIN_EXE_ckptfs"), "inspect"]);
        inspect.arg(folder.path());
        inspect.args(["--metadata-memory", &format!("{LIMIT}B")]);
        let output = inspect.output().unwrap();
        let front = String::from_utf8_lossy(&bytes[..60.min(bytes.len())]).into_owned();
        let said = String::from_utf8_lossy(&output.stderr);
        // A process that cannot have what it allocates is ended by a signal.
        assert_eq!(output.status.code(), Some(1), "{name}: {front}: {said}");
        let is_short = said.lines().count() == 1 && said.len() < 20_000;
        assert!(is_short, "{name}: {front}: {said}");
    }
}

#[test]
fn what_is_charged_for_a_checkpoint_goes_with_it() {
    for source in [
        example(),
        project("tests/data/hf-bin-sharded/source"),
        project("tests/data/legacy-bin/source"),
        project("tests/data/verl-fsdp2-w2/source"),
    ] {
        let budget = Budget::of(64 << 20);
        let opening = Opening {
            budget: budget.clone(),
            ..Opening::default()
        };
        let opened = checkpoint::open_with(&source, &opening).unwrap();
        let tensors = opened.tensors.len() as u64;
        assert!(budget.taken() >= 100 * tensors, "{}", source.display());
        assert!(budget.taken() < 1 << 20, "{}", source.display());
        drop(opened);
        assert_eq!(budget.taken(), 0, "{}", source.display());
    }
}

#[test]
fn a_save_that_exceeds_the_budget_of_a_run_counts_as_ended() {
    let scene = Scene::of(&["step-1"]);
    bloated(&scene, "step-2", 1 << 30);
    let budget = Budget::of(1 << 20);
    let run = Run::find(&scene.run()).unwrap().unwrap();
    let run = run.opened_as(false, budget);
    assert!(run.save("step-1").unwrap().has_ended);
    let save = run.save("step-2").unwrap();
    assert!(save.has_ended);
    assert!(matches!(run.fault(&save), Some(Error::Memory { .. })));
}

#[test]
fn a_process_under_a_limit_of_addresses_serves_on() {
    need_fuse!();
    let scene = Scene::of(&["step-1"]);
    let point = scene.path("point");
    fs::create_dir(&point).unwrap();
    let line = r#"ulimit -v 1000000; exec "$0" "$@""#;
    let mounted = Command::new("sh")
        .args(["-c", line, env!("CARGO_BIN_EXE_ckptfs"), "mount"])
        .args([&scene.run(), &point])
        .arg("--config-from")
        .arg(assets())
        .arg("--daemon")
        .output()
        .unwrap();
    assert!(mounted.status.success(), "{mounted:?}");
    let mut reader = File::open(point.join("step-1/model.safetensors")).unwrap();
    reader.read_exact(&mut [0; 16]).unwrap();
    bloated(&scene, "step-2", 1 << 30);
    let why =
        crate::common::programs::within(|| fs::read_to_string(point.join("step-2/ERROR.txt")).ok());
    assert!(why.contains("its metadata takes at least"), "{why}");
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).unwrap();
    assert!(rest.len() > 1000);
    drop(reader);
    let ended = Command::new(env!("CARGO_BIN_EXE_ckptfs"))
        .arg("umount")
        .arg(&point)
        .status();
    assert!(ended.unwrap().success());
}
