//! Which saves are shown, under which names, and which is the latest.

use std::fs;
use std::thread;
use std::time::Duration;

use ckptfs::output::VirtualFile;
use ckptfs::run::Run;
use safetensors::tensor::{Dtype, TensorView};

use super::scene::*;
use crate::common::programs::complaint;
use crate::need_fuse;

#[test]
fn each_save_is_a_directory_under_its_own_name_and_the_latest_a_link() {
    need_fuse!();
    let scene = Scene::of(&["step-9", "step-10", "step-100"]);
    fs::create_dir(scene.step("logs")).unwrap();
    scene.write("notes.txt", "");
    let shown = scene.mount();
    assert_eq!(shown.names(), ["latest", "step-10", "step-100", "step-9"]);
    assert_eq!(shown.latest().unwrap(), "step-100");
    assert!(
        fs::symlink_metadata(shown.path("latest"))
            .unwrap()
            .is_symlink()
    );
    let alone = open(&example()).unwrap();
    let mut expected: Vec<&str> = alone.iter().map(|file| file.path()).collect();
    expected.sort();
    assert_eq!(names(&shown.path("step-9")), expected);
    assert!(shown.weights("latest") == shown.weights("step-9"));
    assert!(!shown.path("step-11").exists() && !shown.path("logs").exists());
}

#[test]
fn nothing_is_opened_before_somebody_looks_into_it() {
    need_fuse!();
    let steps: Vec<String> = (0..300).map(|step| format!("step-{step}")).collect();
    let scene = Scene::of(&steps.iter().map(|name| &**name).collect::<Vec<_>>());
    let shown = scene.mount();
    assert_eq!(shown.names().len(), 301);
    assert!(fs::metadata(shown.path("step-7")).unwrap().is_dir());
    assert_eq!(shown.latest().unwrap(), "step-299");
    assert_eq!(shown.opened(), 0);
    let step = shown.path("step-7");
    let look = || assert_eq!(names(&step).len(), 5);
    thread::scope(|scope| (0..8).for_each(|_| drop(scope.spawn(look))));
    assert_eq!(shown.opened(), 1);
}

#[test]
fn inodes_are_stable() {
    need_fuse!();
    let scene = Scene::of(&["step-1", "step-2"]);
    let shown = scene.mount();
    let inodes =
        || ["step-1", "step-1/config.json", "step-2/config.json"].map(|name| shown.inode(name));
    let first = inodes();
    assert!(first[1] != first[2]);
    thread::sleep(Duration::from_millis(1100));
    shown.names();
    assert_eq!(inodes(), first);
}

#[test]
fn the_folder_above_the_checkpoints_is_the_run_too() {
    let scene = Scene::new();
    scene.save("checkpoint/step-1");
    let run = Run::find(&scene.run()).unwrap().unwrap();
    assert_eq!(run.names().unwrap(), ["step-1"]);
}

#[test]
fn a_step_that_holds_only_an_adapter_is_a_save() {
    let scene = Scene::new();
    for step in ["global_step_1", "global_step_2"] {
        let folder = scene.step(step).join("actor/lora_adapter");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("adapter_config.json"), "{}").unwrap();
        let tensor = TensorView::new(Dtype::U8, vec![1], &[7]).unwrap();
        let name = "base_model.model.lm_head.lora_A.weight";
        let file = folder.join("adapter_model.safetensors");
        safetensors::serialize_to_file([(name, tensor)], None, &file).unwrap();
    }
    let run = Run::find(&scene.run()).unwrap().unwrap();
    assert_eq!(run.names().unwrap(), ["global_step_1", "global_step_2"]);
    let save = run.save("global_step_2").unwrap();
    let shown = open(&run.place(&save, None).unwrap()).unwrap();
    let alone = open(&scene.step("global_step_2/actor/lora_adapter")).unwrap();
    let paths = |files: &[VirtualFile]| -> Vec<String> {
        files.iter().map(|file| file.path().to_owned()).collect()
    };
    assert_eq!(paths(&shown), paths(&alone));
}

#[test]
fn an_optimizer_without_its_model_is_no_run_and_none_to_come() {
    let scene = Scene::new();
    scene.save("optimizer_0");
    assert!(Run::find(&scene.run()).unwrap().is_none());
    assert!(Run::awaited(&scene.run()).unwrap().is_none());
    let line = open(&scene.run()).unwrap_err().to_string();
    assert!(line.contains("holds optimizer_0 and no weights"), "{line}");
}

#[test]
fn one_checkpoint_is_no_run() {
    let scene = Scene::of(&["step-1"]);
    assert!(Run::find(&scene.step("step-1")).unwrap().is_none());
    assert!(
        Run::find(&scene.step("step-1/.metadata"))
            .unwrap()
            .is_none()
    );
    scene.copy(&example(), "final/model");
    assert!(Run::find(&scene.step("final")).unwrap().is_none());
}

#[test]
fn plain_folders_are_a_run_without_a_latest() {
    need_fuse!();
    let scene = Scene::of(&["best", "last"]);
    let shown = scene.mount();
    assert_eq!(shown.names(), ["best", "last"]);
    assert_eq!(shown.latest(), None);
}

#[test]
fn the_highest_number_is_the_latest_whenever_it_was_saved() {
    let scene = Scene::of(&["step-20", "step-9"]);
    let run = Run::find(&scene.run()).unwrap().unwrap();
    assert_eq!(run.latest().unwrap().unwrap().name, "step-20");
}

#[test]
fn of_two_kinds_of_names_the_one_saved_last_is_the_latest() {
    let scene = Scene::of(&["step_500", "epoch_0", "epoch_1"]);
    let run = Run::find(&scene.run()).unwrap().unwrap();
    let latest = || run.latest().unwrap().unwrap().name;
    scene.age("epoch_1", Duration::from_secs(60));
    assert_eq!(latest(), "step_500");
    scene.age("step_500", Duration::from_secs(90));
    assert_eq!(latest(), "epoch_1");
}

#[test]
fn the_parts_of_a_save_are_directories_and_the_latest_is_the_actor() {
    need_fuse!();
    let verl = project("tests/data/verl-fsdp2-w2/source");
    let scene = Scene::new();
    for part in [
        "global_step_5/actor",
        "global_step_5/critic",
        "global_step_10/actor",
    ] {
        scene.copy(&verl, part);
    }
    scene.copy(&verl, "global_step_10/critic");
    scene.write("latest_checkpointed_iteration.txt", "5");
    let shown = scene.mount();
    assert_eq!(shown.names(), ["global_step_5", "latest"]);
    assert_eq!(names(&shown.path("global_step_5")), ["actor", "critic"]);
    assert_eq!(shown.latest().unwrap(), "global_step_5/actor");
    assert!(shown.path("latest/config.json").exists());
    assert!(shown.weights("latest") == shown.weights("global_step_5/critic"));
}

/// The answers of the commands for one checkpoint to `run`.
fn said_of_run(scene: &Scene) -> Vec<String> {
    let commands = [
        &["exec", "run", "--", "ls", "{}"][..],
        &["export", "run", "out"],
        &["verify", "run"],
        &["inspect", "run", "--html", "page"],
        &["inspect", "run", "--tensor", "lm_head.weight"],
    ];
    let said = commands.map(|arguments| scene.command(arguments).stderr);
    said.into_iter()
        .map(|said| String::from_utf8(said).unwrap())
        .collect()
}

#[test]
fn commands_for_one_checkpoint_take_the_latest_that_is_complete() {
    let scene = Scene::of(&["step-1", "step-2"]);
    scene.begin("step-3");
    for said in said_of_run(&scene) {
        assert!(said.contains("its latest save is taken"), "{said}");
        assert!(said.contains("run/step-2"), "{said}");
    }
}

#[test]
fn commands_for_one_checkpoint_look_into_the_folder_above_a_run() {
    let scene = Scene::of(&["checkpoint/step-1", "checkpoint/step-2"]);
    scene.begin("checkpoint/step-3");
    for said in said_of_run(&scene) {
        assert!(said.contains("run/checkpoint/step-2"), "{said}");
    }
}

#[test]
fn a_run_without_a_complete_save_is_refused_by_commands_for_one() {
    let scene = Scene::new();
    scene.begin("step-3");
    scene.begin("step-4");
    let said = complaint(&scene.command(&["verify", "run"]));
    let expected = "holds no complete checkpoint with a number yet";
    assert!(said.contains(expected), "{said}");
}

#[test]
fn inspect_lists_the_saves_of_a_run() {
    let scene = Scene::of(&["step-9", "step-10"]);
    scene.begin("step-11");
    let output = scene.command(&["inspect", "run"]);
    let said = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = said.lines().skip(1).collect();
    let expected = [
        "save       step-9 (dcp)",
        "save       step-10 (dcp)",
        "save       step-11 (dcp, incomplete)",
        "latest     step-10",
    ];
    assert_eq!(lines, expected);
    let output = scene.command(&["inspect", "run", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["latest"], "step-10");
    assert_eq!(report["saves"][2]["is_complete"], false);
}

#[test]
fn options_that_suit_no_checkpoint_are_refused_before_the_mount() {
    let scene = Scene::of(&["step-1"]);
    fs::create_dir(scene.path("point")).unwrap();
    let output = scene.command(&["mount", "run", "point", "--config-from", "missing"]);
    assert_eq!(output.status.code(), Some(4));
    assert!(complaint(&output).contains("missing"));
}

#[test]
fn a_checkpoint_in_numbered_parts_is_no_run() {
    let accelerate = Scene::of(&["pytorch_model_fsdp_0", "optimizer_0"]);
    let megatron = Scene::new();
    for rank in ["mp_rank_00", "mp_rank_01"] {
        fs::create_dir(megatron.step(rank)).unwrap();
        megatron.write(&format!("{rank}/model_optim_rng.pt"), "");
    }
    for scene in [accelerate, megatron] {
        assert!(Run::find(&scene.run()).unwrap().is_none());
        assert!(Run::awaited(&scene.run()).unwrap().is_none());
    }
}
