//! Saves that come by a copy, file after file in the order of names: what a save ends with may come first.

use std::fs;
use std::time::Duration;

use super::scene::*;
use crate::common::programs::within;
use crate::need_fuse;

/// Puts the first `part` bytes of a file of the example into the step, all where it has no more.
fn put(scene: &Scene, name: &str, part: usize) {
    let bytes = fs::read(example().join(name)).unwrap();
    fs::create_dir_all(scene.step("step-2")).unwrap();
    fs::write(
        scene.step("step-2").join(name),
        &bytes[..part.min(bytes.len())],
    )
    .unwrap();
}

#[test]
fn a_copied_save_appears_when_all_that_its_metadata_names_is_there() {
    need_fuse!();
    let scene = Scene::of(&["step-1"]);
    let shown = scene.mount();
    let steps: [(&str, usize); 4] = [
        (".metadata", 100),
        (".metadata", usize::MAX),
        ("__0_0.distcp", usize::MAX),
        ("__1_0.distcp", 4000),
    ];
    for (name, part) in steps {
        put(&scene, name, part);
        assert!(!shown.path("step-2").exists(), "{name} {part}");
        assert_eq!(shown.names(), ["latest", "step-1"]);
        assert_eq!(shown.latest().unwrap(), "step-1");
    }
    put(&scene, "__1_0.distcp", usize::MAX);
    within(|| fs::metadata(shown.path("step-2/model.safetensors")).ok());
    assert!(shown.weights("step-2") == shown.weights("step-1"));
    within(|| (shown.latest().as_deref() == Some("step-2")).then_some(()));
}

#[test]
fn a_copy_that_keeps_times_is_no_older_than_its_newest_file() {
    need_fuse!();
    let scene = Scene::of(&["step-1"]);
    put(&scene, ".metadata", usize::MAX);
    put(&scene, "__0_0.distcp", usize::MAX);
    scene.age("step-2", Duration::from_secs(3600));
    put(&scene, "__1_0.distcp", 4000);
    let shown = scene.mount();
    assert_eq!(shown.names(), ["latest", "step-1"]);
}

#[test]
fn a_save_that_is_not_whole_is_opened_again_only_when_it_changes() {
    let scene = Scene::of(&["step-1"]);
    let metadata = scene.step("step-1/.metadata");
    let bytes = fs::read(&metadata).unwrap();
    let written = fs::metadata(&metadata).unwrap().modified().unwrap();
    let rewrite = |bytes: &[u8]| {
        fs::write(&metadata, bytes).unwrap();
        let file = fs::File::options().write(true).open(&metadata).unwrap();
        file.set_modified(written).unwrap();
    };
    rewrite(&vec![0; bytes.len()]);
    let run = ckptfs::run::Run::find(&scene.run()).unwrap().unwrap();
    let has_ended = || run.save("step-1").unwrap().has_ended;
    assert!(!has_ended());
    rewrite(&bytes);
    assert!(!has_ended(), "opened, though nothing shows that it changed");
    scene.age("step-1", Duration::from_secs(1));
    assert!(has_ended());
}
