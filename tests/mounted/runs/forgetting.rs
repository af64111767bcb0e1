//! A run that is mounted for long, and of which many saves are looked into, remembers few.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use ckptfs::source::Budget;
use ckptfs::view::{self, View};

use super::scene::*;
use crate::common::programs::within;
use crate::need_fuse;

/// Saves that may stay open unused.
const KEPT: u64 = 16;

fn names_of(count: usize) -> Vec<String> {
    (1..=count).map(|step| format!("step-{step}")).collect()
}

/// A run of so many steps, its mount, and the budget of what is open.
fn looked_into(count: usize) -> (Scene, Shown, Budget) {
    let names = names_of(count);
    let scene = Scene::of(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let budget = Budget::of(1 << 30);
    let options = view::Options {
        config_from: Some(assets()),
        budget: budget.clone(),
        ..view::Options::default()
    };
    let open = move |path: &Path| Ok(View::open(path, &options)?.files);
    let shown = scene.mount_with(open);
    (scene, shown, budget)
}

#[test]
fn saves_that_are_not_used_are_closed_and_opened_again_as_they_were() {
    need_fuse!();
    let (_scene, shown, budget) = looked_into(40);
    let first = shown.weights("step-1");
    let one = budget.taken();
    assert!(one > 0);
    let inode = shown.inode("step-1/model.safetensors");
    for name in names_of(40) {
        assert!(shown.weights(&name) == first, "{name}");
    }
    within(|| (budget.taken() <= (KEPT + 1) * one).then_some(()));
    let opened = shown.opened();
    assert_eq!(shown.inode("step-1/model.safetensors"), inode);
    assert!(shown.weights("step-1") == first);
    assert!(shown.opened() <= opened + 1);
}

#[test]
fn a_file_that_a_reader_has_open_stays_whatever_else_is_looked_into() {
    need_fuse!();
    let (scene, shown, _budget) = looked_into(40);
    let expected = shown.weights("step-2");
    let reader = File::open(shown.path("step-1/model.safetensors")).unwrap();
    fs::remove_dir_all(scene.step("step-1")).unwrap();
    for name in names_of(40).iter().skip(1) {
        shown.weights(name);
    }
    within(|| (!shown.path("step-1").exists()).then_some(()));
    let mut bytes = vec![0; expected.len()];
    reader.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes == expected);
}

#[test]
fn saves_that_are_gone_take_no_memory() {
    need_fuse!();
    let (scene, shown, budget) = looked_into(3);
    for name in names_of(3) {
        shown.weights(&name);
    }
    let all = budget.taken();
    for name in ["step-1", "step-2"] {
        fs::remove_dir_all(scene.step(name)).unwrap();
    }
    within(|| {
        shown.names();
        (budget.taken() <= all / 3).then_some(())
    });
}

#[test]
fn a_closed_save_that_has_changed_meanwhile_is_another() {
    need_fuse!();
    let (scene, shown, _budget) = looked_into(20);
    let inode = shown.inode("step-1/model.safetensors");
    for name in names_of(20) {
        shown.weights(&name);
    }
    fs::remove_dir_all(scene.step("step-1")).unwrap();
    scene.save("step-1");
    let path = shown.path("step-1/model.safetensors");
    within(|| {
        let is_new = fs::metadata(&path).is_ok() && shown.inode("step-1") >> 32 != inode >> 32;
        is_new.then_some(())
    });
    assert!(shown.weights("step-1") == shown.weights("step-2"));
}
