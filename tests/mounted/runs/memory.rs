//! Metadata that takes more memory than there is: an error of its save, and of no other.

use std::fs::{self, File};
use std::io::Read;
use std::process::Command;

use ckptfs::checkpoint::{self, Opening, Run};
use ckptfs::error::Error;
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
