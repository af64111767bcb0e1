//! Runs as the trainers that are known leave them, each from its root: where in a save the weights lie, and what beside the
//! saves is none.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use ckptfs::run::Run;
use ckptfs::view::{Options, View};

use super::scene::*;

/// Folders of the weights in the run, of an earlier and a later save.
const SHAPES: [[&str; 2]; 11] = [
    ["checkpoint/step-2", "checkpoint/step-10"],
    ["checkpoints/step_2/trainer", "checkpoints/step_10/trainer"],
    ["global_step_2/policy", "global_step_10/policy"],
    [
        "global_step_2/actor/dcp_checkpoint",
        "global_step_10/actor/dcp_checkpoint",
    ],
    [
        "global_step_2/actor/model/huggingface",
        "global_step_10/actor/model/huggingface",
    ],
    [
        "global_step_2/actor/model/dist_ckpt",
        "global_step_10/actor/model/dist_ckpt",
    ],
    ["step2/model_and_optim", "step10/model_and_optim"],
    ["epoch_0_step_2/model", "epoch_0_step_10/model"],
    ["step_2/policy/weights", "step_10/policy/weights"],
    [
        "step_2/policy/weights/iter_0000000",
        "step_10/policy/weights/iter_0000000",
    ],
    [
        "epoch0epochstep2globalstep2",
        "epoch0epochstep10globalstep10",
    ],
];

fn save_of(weights: &str) -> &str {
    let inner = weights
        .strip_prefix("checkpoints/")
        .or(weights.strip_prefix("checkpoint/"));
    let inner = inner.unwrap_or(weights);
    inner.split('/').next().unwrap()
}

fn opened(path: &Path) -> usize {
    let options = Options {
        config_from: Some(assets()),
        ..Options::default()
    };
    View::open(path, &options).unwrap().tensors.len()
}

#[test]
fn every_trainers_run_is_read_from_its_root() {
    let alone = opened(&example());
    for weights in SHAPES {
        let scene = Scene::new();
        weights.iter().for_each(|weights| scene.save(weights));
        let [earlier, later] = weights.map(save_of);
        let run = Run::find(&scene.run())
            .unwrap()
            .unwrap_or_else(|| panic!("{later} makes no run"));
        let mut names = run.names().unwrap();
        names.sort_by_key(|name| name.len());
        assert_eq!(names, [earlier, later]);
        let latest = run.latest().unwrap().unwrap();
        assert_eq!(latest.name, later);
        let pinned = Run::pinned(&scene.run().join("latest")).unwrap();
        assert_eq!(opened(&pinned), alone, "{later}");
        for save in [earlier, later] {
            let save = run.save(save).unwrap();
            assert_eq!(
                opened(&run.place(&save, None).unwrap()),
                alone,
                "{}",
                save.name
            );
        }
    }
}

#[test]
fn a_link_beside_the_saves_is_none_of_them() {
    let scene = Scene::new();
    scene.save("epoch_0_step_2/model");
    scene.save("epoch_0_step_4/model");
    symlink("epoch_0_step_4", scene.step("LATEST")).unwrap();
    symlink("epoch_0_step_2", scene.step("LOWEST_VAL")).unwrap();
    let run = Run::find(&scene.run()).unwrap().unwrap();
    assert_eq!(run.names().unwrap(), ["epoch_0_step_2", "epoch_0_step_4"]);
    assert_eq!(run.latest().unwrap().unwrap().name, "epoch_0_step_4");
}

#[test]
fn a_save_that_is_marked_as_unfinished_has_not_ended() {
    let scene = Scene::new();
    scene.save("epoch_0_step_2/model");
    scene.save("epoch_0_step_4/model");
    scene.write("epoch_0_step_4/.incomplete", "");
    let run = Run::find(&scene.run()).unwrap().unwrap();
    assert_eq!(run.latest().unwrap().unwrap().name, "epoch_0_step_2");
    let options = Options {
        config_from: Some(assets()),
        ..Options::default()
    };
    let line = View::open(&scene.step("epoch_0_step_4"), &options)
        .unwrap_err()
        .to_string();
    assert!(line.contains(".incomplete"), "{line}");
    fs::remove_file(scene.step("epoch_0_step_4/.incomplete")).unwrap();
    assert_eq!(run.latest().unwrap().unwrap().name, "epoch_0_step_4");
}

#[test]
fn the_trained_part_of_a_save_is_its_model() {
    for [trained, other] in [["policy", "critic"], ["actor", "critic"]] {
        let scene = Scene::new();
        for step in ["global_step_1", "global_step_2"] {
            scene.save(&format!("{step}/{trained}"));
            scene.save(&format!("{step}/{other}"));
        }
        let run = Run::find(&scene.run()).unwrap().unwrap();
        let latest = run.latest().unwrap().unwrap();
        assert_eq!(latest.model(), format!("global_step_2/{trained}"));
        let options = Options {
            config_from: Some(assets()),
            ..Options::default()
        };
        let save = View::open(&scene.step("global_step_2"), &options).unwrap();
        let said = save.notes.iter().map(|note| note.text.clone());
        let left_out = format!("{other} beside {trained} is left out");
        assert!(
            said.clone().any(|note| note.contains(&left_out)),
            "{:?}",
            said.collect::<Vec<_>>()
        );
    }
}
