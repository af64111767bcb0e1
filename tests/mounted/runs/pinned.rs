//! `RUN/latest`, which a command looks up once, and a run that is mounted before its job has saved anything.

use std::fs;

use super::scene::*;
use crate::common::programs::{complaint, within};
use crate::need_fuse;

fn config() -> String {
    assets().into_os_string().into_string().unwrap()
}

#[test]
fn a_command_keeps_the_step_that_was_the_latest() {
    need_fuse!();
    let scene = Scene::of(&["step-1", "step-2"]);
    scene.begin("step-3");
    let (from, to) = (
        scene.step("step-3/.metadata.tmp"),
        scene.step("step-3/.metadata"),
    );
    let script =
        "cd {} && pwd -P && mv $FROM $TO && sleep 1.5 && pwd -P && wc -c < model.safetensors"
            .replace("$FROM", from.to_str().unwrap())
            .replace("$TO", to.to_str().unwrap());
    let with = ["--config-from", &config(), "--", "sh", "-c", &script];
    let output = scene.command(&[&["exec", "run/latest"], &with[..]].concat());
    let said = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 3, "{said} {:?}", output.stderr);
    assert!(
        lines[0].ends_with("/step-2") && lines[1] == lines[0],
        "{said}"
    );
    let inspected = scene.command(&["inspect", "run/latest", "--config-from", &config()]);
    assert!(
        String::from_utf8(inspected.stdout)
            .unwrap()
            .contains("run/step-3")
    );
}

#[test]
fn a_link_of_that_name_in_the_source_is_followed_as_it_is() {
    let scene = Scene::of(&["step-1", "step-2"]);
    std::os::unix::fs::symlink("step-1", scene.step("latest")).unwrap();
    let output = scene.command(&["inspect", "run/latest", "--config-from", &config()]);
    assert!(
        String::from_utf8(output.stdout)
            .unwrap()
            .contains("run/step-1")
    );
}

#[test]
fn latest_of_a_run_without_a_complete_save_is_refused() {
    let scene = Scene::new();
    scene.begin("step-1");
    let said = complaint(&scene.command(&["verify", "run/latest"]));
    assert!(
        said.contains("no complete checkpoint with a number yet"),
        "{said}"
    );
}

#[test]
fn a_run_may_be_mounted_before_its_first_save() {
    need_fuse!();
    for (begun, step) in [
        ("step-1", "step-1"),
        ("checkpoint", "checkpoint/step-1"),
        ("checkpoints", "checkpoints/step-1"),
    ] {
        let scene = Scene::new();
        fs::create_dir_all(scene.step(begun)).unwrap();
        let shown = scene.mount();
        assert!(shown.names().is_empty());
        scene.save(step);
        within(|| (shown.names() == ["latest", "step-1"]).then_some(()));
        assert!(!shown.weights("latest").is_empty());
    }
}

#[test]
fn a_folder_of_other_things_is_no_run_to_come() {
    let scene = Scene::new();
    fs::create_dir(scene.path("point")).unwrap();
    let said = complaint(&scene.command(&["mount", "run", "point"]));
    assert!(said.contains("holds no checkpoint that is known"), "{said}");
    scene.write("notes.txt", "");
    let said = complaint(&scene.command(&["mount", "run", "point"]));
    assert!(said.contains("holds no checkpoint that is known"), "{said}");
    let said = complaint(&scene.command(&["mount", "runn", "point"]));
    assert!(said.contains("there is no such file or folder"), "{said}");
}
