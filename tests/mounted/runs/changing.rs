//! Saves that end, are replaced and are deleted while the run is mounted.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use super::scene::*;
use crate::common::programs::within;
use crate::need_fuse;

/// Waits until the mount shows `names`.
fn await_names(shown: &Shown, names: &[&str]) {
    within(|| (shown.names() == names).then_some(()));
}

/// Waits until the link leads to `name`.
fn await_latest(shown: &Shown, name: &str) {
    within(|| (shown.latest().as_deref() == Some(name)).then_some(()));
}

#[test]
fn a_save_appears_when_its_last_file_does_and_not_before() {
    need_fuse!();
    let scene = Scene::of(&["step-1"]);
    scene.begin("step-2");
    let shown = scene.mount();
    assert_eq!(shown.names(), ["latest", "step-1"]);
    assert!(!shown.path("step-2").exists());
    scene.end("step-2");
    assert!(shown.weights("step-2") == shown.weights("step-1"));
    await_names(&shown, &["latest", "step-1", "step-2"]);
    await_latest(&shown, "step-2");
}

#[test]
fn a_run_may_be_mounted_before_its_first_save_has_ended() {
    need_fuse!();
    let scene = Scene::new();
    scene.begin("step-1");
    let shown = scene.mount();
    assert!(shown.names().is_empty() && shown.latest().is_none());
    scene.end("step-1");
    await_names(&shown, &["latest", "step-1"]);
}

#[test]
fn a_deleted_save_goes_and_its_readers_finish() {
    need_fuse!();
    let scene = Scene::of(&["step-1", "step-2"]);
    let shown = scene.mount();
    let expected = shown.weights("step-1");
    let mut reader = File::open(shown.path("step-2/model.safetensors")).unwrap();
    reader.read_exact(&mut [0; 8]).unwrap();
    fs::remove_dir_all(scene.step("step-2")).unwrap();
    await_names(&shown, &["latest", "step-1"]);
    within(|| (!shown.path("step-2").exists()).then_some(()));
    await_latest(&shown, "step-1");
    let mut rest = vec![0; expected.len() - 8];
    reader.read_exact_at(&mut rest, 8).unwrap();
    assert!(rest == expected[8..]);
}

#[test]
fn a_save_of_the_same_name_is_another() {
    need_fuse!();
    let scene = Scene::of(&["step-1", "step-2"]);
    let shown = scene.mount();
    let (inode, old) = (shown.inode("step-2"), shown.weights("step-2"));
    let reader = File::open(shown.path("step-2/model.safetensors")).unwrap();
    fs::remove_dir_all(scene.step("step-2")).unwrap();
    scene.copy(&project("tests/data/verl-fsdp2-w2/source"), "step-2");
    scene.age("step-2", Duration::from_secs(60));
    within(|| {
        (shown.inode("step-1") != 0 && fs::metadata(shown.path("step-2")).is_ok()).then_some(())
    });
    within(|| (shown.inode("step-2") != inode).then_some(()));
    assert!(shown.weights("step-2") != old);
    let mut bytes = vec![0; old.len()];
    reader.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes == old);
}

#[test]
fn files_without_a_last_one_must_rest_and_be_whole() {
    need_fuse!();
    let scene = Scene::of(&["step-1"]);
    scene.copy(&project("tests/data/hf-bin-sharded/source"), "step-2");
    let shown = scene.mount();
    assert!(!shown.path("step-2").exists());
    let shard = scene.step("step-2/pytorch_model-00002-of-00004.bin");
    let bytes = fs::read(&shard).unwrap();
    fs::write(&shard, &bytes[..bytes.len() / 2]).unwrap();
    scene.age("step-2", Duration::from_secs(60));
    assert!(!shown.path("step-2").exists());
    fs::write(&shard, &bytes).unwrap();
    scene.age("step-2", Duration::from_secs(60));
    assert!(!shown.weights("step-2").is_empty());
    await_names(&shown, &["latest", "step-1", "step-2"]);
}

#[test]
fn files_that_nobody_completes_are_shown_as_broken_in_the_end() {
    need_fuse!();
    let scene = Scene::of(&["step-1"]);
    scene.copy(&project("tests/data/hf-bin-sharded/source"), "step-2");
    fs::remove_file(scene.step("step-2/pytorch_model-00002-of-00004.bin")).unwrap();
    scene.age("step-2", Duration::from_secs(3600));
    let shown = scene.mount();
    let why = shown.error("step-2");
    assert!(why.contains("00002-of-00004.bin: is missing"), "{why}");
}

#[test]
fn a_save_beyond_the_number_that_the_run_names_is_not_complete() {
    need_fuse!();
    let verl = project("tests/data/verl-fsdp2-w2/source");
    let scene = Scene::new();
    for step in ["global_step_1/actor", "global_step_2/actor"] {
        scene.copy(&verl, step);
        scene.age(step, Duration::from_secs(3600));
    }
    scene.write("latest_checkpointed_iteration.txt", "1");
    let shown = scene.mount();
    assert_eq!(shown.names(), ["global_step_1", "latest"]);
    scene.write("latest_checkpointed_iteration.txt", "2");
    await_names(&shown, &["global_step_1", "global_step_2", "latest"]);
    await_latest(&shown, "global_step_2");
    assert!(shown.path("latest/config.json").exists());
}

#[test]
fn linguas_saves_end_with_the_state_of_training() {
    need_fuse!();
    let scene = Scene::of(&["0000000010", "0000000020"]);
    scene.write("0000000010/train_state_00000.json", "{}");
    let shown = scene.mount();
    assert_eq!(shown.names(), ["0000000010", "latest"]);
    scene.write("0000000020/train_state_00000.json", "{}");
    await_names(&shown, &["0000000010", "0000000020", "latest"]);
}
