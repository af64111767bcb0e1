//! Runs whose checkpoints are files of one folder.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use ckptfs::run::Run;

use super::scene::*;
use crate::common::programs::complaint;
use crate::need_fuse;

/// A run of files of torch.save, each complete for a minute, with one config.json for all.
fn files(names: &[&str]) -> Scene {
    let data = project("tests/data/legacy-bin/source");
    let scene = Scene::new();
    let copy = |from: &Path, name: &str| fs::copy(from, scene.step(name)).unwrap();
    copy(&data.join("config.json"), "config.json");
    for name in names {
        copy(&data.join("pytorch_model.bin"), name);
    }
    scene.age("", Duration::from_secs(60));
    scene
}

#[test]
fn files_of_lightning_are_the_saves_of_a_run() {
    need_fuse!();
    let scene = files(&["epoch=0-step=200.ckpt", "epoch=1-step=50.ckpt", "last.ckpt"]);
    let shown = scene.mount();
    let names = [
        "epoch=0-step=200.ckpt",
        "epoch=1-step=50.ckpt",
        "last.ckpt",
        "latest",
    ];
    assert_eq!(shown.names(), names);
    assert_eq!(shown.latest().unwrap(), "epoch=1-step=50.ckpt");
    assert!(shown.path("latest/config.json").exists());
    assert!(shown.weights("last.ckpt") == shown.weights("latest"));
}

#[test]
fn the_folder_above_the_files_is_the_run_too() {
    let scene = files(&["epoch=0-step=200.ckpt", "last.ckpt"]);
    let outer = scene.path("version_0");
    fs::create_dir(&outer).unwrap();
    fs::write(outer.join("hparams.yaml"), "").unwrap();
    fs::rename(scene.run(), outer.join("checkpoints")).unwrap();
    let run = Run::find(&outer).unwrap().unwrap();
    assert_eq!(run.names().unwrap(), ["epoch=0-step=200.ckpt", "last.ckpt"]);
    let output = scene.command(&["verify", "version_0"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("epoch=0-step=200.ckpt"), "{said}");
}

#[test]
fn numbered_files_of_torch_save_are_the_saves_of_a_run() {
    need_fuse!();
    for names in [
        ["step_100.pt", "step_20.pt"],
        ["checkpoint-100.pth", "checkpoint-20.pth"],
    ] {
        let scene = files(&names);
        let shown = scene.mount();
        let mut expected = [names[0], names[1], "latest"];
        expected.sort();
        assert_eq!(shown.names(), expected);
        assert_eq!(shown.latest().unwrap(), names[0]);
        assert!(!shown.path("config.json").exists());
    }
}

#[test]
fn who_may_read_a_file_may_enter_its_directory() {
    need_fuse!();
    let scene = files(&["step_1.pt", "step_2.pt"]);
    for (mode, expected) in [(0o644, 0o755), (0o640, 0o750), (0o600, 0o700)] {
        let permissions = Permissions::from_mode(mode);
        fs::set_permissions(scene.step("step_1.pt"), permissions).unwrap();
        let directory = fs::metadata(scene.mount().path("step_1.pt")).unwrap();
        assert_eq!(directory.permissions().mode() & 0o7777, expected);
    }
}

#[test]
fn a_file_that_is_being_written_is_not_shown() {
    need_fuse!();
    let scene = files(&["step_1.pt", "step_2.pt"]);
    let bytes = fs::read(scene.step("step_1.pt")).unwrap();
    scene.write("step_3.pt", "");
    fs::write(scene.step("step_4.pt"), &bytes[..bytes.len() / 2]).unwrap();
    let shown = scene.mount();
    assert_eq!(shown.names(), ["latest", "step_1.pt", "step_2.pt"]);
    scene.age("", Duration::from_secs(60));
    assert!(!shown.path("step_4.pt").exists());
    fs::write(scene.step("step_4.pt"), &bytes).unwrap();
    scene.age("", Duration::from_secs(60));
    assert!(shown.weights("step_4.pt") == shown.weights("step_1.pt"));
}

#[test]
fn one_file_is_a_checkpoint_and_files_of_unknown_names_are_refused() {
    let one = files(&["epoch=0-step=10.ckpt"]);
    assert!(Run::find(&one.run()).unwrap().is_none());
    let several = files(&["a.pt", "step_2.pt"]);
    assert!(Run::find(&several.run()).unwrap().is_none());
    let said = complaint(&several.command(&["verify", "run"]));
    assert!(said.contains("name one: a.pt, step_2.pt"), "{said}");
}

#[test]
fn commands_for_one_checkpoint_take_the_latest_file() {
    let scene = files(&["step_1.pt", "step_2.pt"]);
    let output = scene.command(&["verify", "run"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("step_2.pt"), "{said}");
    let output = scene.command(&["verify", "run/latest"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}
