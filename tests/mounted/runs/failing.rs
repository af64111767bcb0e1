//! Saves that cannot be shown, and names that should not be.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::scene::*;
use crate::common::programs::within;
use crate::need_fuse;

const HOUR: Duration = Duration::from_secs(3600);

fn cut(path: &Path) {
    let file = File::options().write(true).open(path).unwrap();
    file.set_len(100).unwrap();
}

#[test]
fn a_broken_save_says_why_and_takes_no_other_with_it() {
    need_fuse!();
    let scene = Scene::of(&["step-1", "step-2"]);
    cut(&scene.step("step-2/__0_0.distcp"));
    scene.age("step-2", HOUR);
    let shown = scene.mount();
    let why = shown.error("step-2");
    assert!(
        why.contains("__0_0.distcp") && why.contains("incomplete"),
        "{why}"
    );
    assert_eq!(why.lines().count(), 1);
    assert!(!shown.weights("step-1").is_empty());
}

#[test]
fn inspect_says_that_a_save_is_broken_and_why() {
    let scene = Scene::of(&["step-1", "step-2"]);
    cut(&scene.step("step-2/__0_0.distcp"));
    scene.age("step-1", HOUR);
    scene.age("step-2", HOUR);
    let text = String::from_utf8(scene.command(&["inspect", "run"]).stdout).unwrap();
    assert!(text.contains("step-1 (dcp)") && text.contains("step-2 (dcp, broken)"));
    let json = scene.command(&["inspect", "run", "--json"]).stdout;
    let report: serde_json::Value = serde_json::from_slice(&json).unwrap();
    let [whole, broken] = [0, 1].map(|at| &report["saves"][at]);
    assert!(whole["is_complete"] == true && whole["error"].is_null());
    let why = broken["error"].as_str().unwrap();
    assert!(
        broken["is_complete"] == false && why.contains("__0_0.distcp"),
        "{why}"
    );
}

#[test]
fn a_save_that_is_mended_is_shown() {
    need_fuse!();
    let scene = Scene::of(&["step-1", "step-2"]);
    fs::rename(scene.step("step-2/__1_0.distcp"), scene.path("away")).unwrap();
    scene.age("step-2", HOUR);
    let shown = scene.mount();
    assert!(shown.error("step-2").contains("__1_0.distcp is missing"));
    fs::rename(scene.path("away"), scene.step("step-2/__1_0.distcp")).unwrap();
    within(|| fs::metadata(shown.path("step-2/model.safetensors")).ok());
    assert!(shown.weights("step-2") == shown.weights("step-1"));
}

#[test]
fn one_part_may_be_broken() {
    need_fuse!();
    let verl = project("tests/data/verl-fsdp2-w2/source");
    let scene = Scene::new();
    scene.copy(&verl, "global_step_1/actor");
    scene.copy(&verl, "global_step_1/critic");
    fs::remove_file(scene.step("global_step_1/critic/model_world_size_2_rank_1.pt")).unwrap();
    scene.write("latest_checkpointed_iteration.txt", "1");
    scene.age("global_step_1/critic", HOUR);
    scene.age("global_step_1/actor", HOUR);
    scene.age("global_step_1", HOUR);
    let shown = scene.mount();
    assert!(
        shown
            .error("global_step_1/critic")
            .contains("model_world_size_2_rank_1.pt")
    );
    assert!(!shown.weights("global_step_1/actor").is_empty());
}

#[test]
fn a_bug_in_one_checkpoint_is_no_end_of_the_mount() {
    need_fuse!();
    let scene = Scene::of(&["step-1", "step-2"]);
    let shown = scene.mount_with(|path| match path.ends_with("step-2") {
        true => panic!("a bug"),
        false => open(path),
    });
    assert!(shown.error("step-2").contains("a bug in ckptfs"));
    assert!(!shown.weights("step-1").is_empty());
}

/// The run of `scene`, whose step 2 is opened once the gate is.
fn gated(scene: &Scene, gate: &Arc<Mutex<()>>) -> Shown {
    let gate = gate.clone();
    scene.mount_with(move |path| {
        if path.ends_with("step-2") {
            drop(gate.lock());
        }
        open(path)
    })
}

#[test]
fn a_slow_save_holds_up_no_other() {
    need_fuse!();
    let scene = Scene::of(&["step-1", "step-2"]);
    let gate = Arc::new(Mutex::new(()));
    let closed = gate.lock().unwrap();
    let shown = gated(&scene, &gate);
    let point = shown.path("");
    let look = |name: &'static str| names(&point.join(name)).len();
    thread::scope(|scope| {
        // More than the mount has threads.
        let slow: Vec<_> = (0..6).map(|_| scope.spawn(|| look("step-2"))).collect();
        within(|| (shown.opened() > 0).then_some(()));
        assert_eq!(look("step-1"), 5);
        assert_eq!(shown.names(), ["latest", "step-1", "step-2"]);
        drop(closed);
        slow.into_iter()
            .for_each(|look| assert_eq!(look.join().unwrap(), 5));
    });
    assert_eq!(shown.opened(), 2);
}

/// Threads of this process.
fn threads() -> usize {
    fs::read_dir("/proc/self/task").unwrap().count()
}

#[test]
fn many_who_wait_for_a_slow_save_take_few_threads() {
    need_fuse!();
    const READERS: usize = 300;
    let scene = Scene::of(&["step-1", "step-2"]);
    let gate = Arc::new(Mutex::new(()));
    let closed = gate.lock().unwrap();
    let shown = gated(&scene, &gate);
    assert!(!shown.weights("step-1").is_empty());
    let before = threads();
    let mut readers = Command::new("sh");
    let stats = format!("for name in $(seq {READERS}); do stat $0/$name 2>/dev/null & done; wait");
    readers.args(["-c", &stats]).arg(shown.path("step-2"));
    let mut readers = readers.spawn().unwrap();
    within(|| (shown.opened() > 1).then_some(()));
    for _ in 0..20 {
        thread::sleep(Duration::from_millis(100));
        assert!(!shown.weights("step-1").is_empty());
        let more = threads().saturating_sub(before);
        assert!(more < READERS / 3, "{more} threads more");
    }
    drop(closed);
    assert!(within(|| readers.try_wait().unwrap()).success());
    assert_eq!(shown.opened(), 2);
}

#[test]
fn links_stay_in_the_run() {
    need_fuse!();
    let scene = Scene::of(&["step-1"]);
    fs::rename(scene.step("step-1"), scene.path("elsewhere")).unwrap();
    scene.save("step-2");
    symlink(scene.path("elsewhere"), scene.step("step-1")).unwrap();
    symlink("step-2", scene.step("step-3")).unwrap();
    symlink("step-4", scene.step("step-4")).unwrap();
    symlink("step-1", scene.step("latest")).unwrap();
    let shown = scene.mount();
    assert_eq!(shown.names(), ["latest", "step-1", "step-2", "step-3"]);
    assert!(shown.error("step-1").contains("is a link to"));
    assert!(shown.weights("step-3") == shown.weights("step-2"));
    assert_eq!(shown.latest().unwrap(), "step-3");
}

#[test]
fn a_run_that_cannot_be_listed_is_logged_in_few_lines() {
    need_fuse!();
    let scene = Scene::of(&["step-1"]);
    fs::create_dir(scene.path("point")).unwrap();
    let mount = ["mount", "run", "point", "--daemon", "--log-file", "log"];
    let output = scene.command(&mount);
    assert!(output.status.success(), "{output:?}");
    fs::rename(scene.run(), scene.path("away")).unwrap();
    let list =
        || fs::read_dir(scene.path("point")).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let failed = (0..100).filter(|_| list().is_err()).count();
    fs::rename(scene.path("away"), scene.run()).unwrap();
    within(|| (list().unwrap().len() == 2).then_some(()));
    assert!(scene.command(&["umount", "point"]).status.success());
    let log = fs::read_to_string(scene.path("log")).unwrap();
    assert!(
        failed > 50 && (1..20).contains(&log.lines().count()),
        "{failed} failed: {log}"
    );
}

#[test]
fn names_that_break_a_line_are_not_shown() {
    need_fuse!();
    let scene = Scene::of(&["step-1", "step\n-2", "step-\u{1b}[31m3"]);
    let shown = scene.mount();
    assert_eq!(shown.names(), ["latest", "step-1"]);
    assert!(!shown.path("step\n-2").exists());
}

#[test]
fn a_save_under_a_temporary_name_is_not_shown() {
    need_fuse!();
    let hidden = ["tmp-step-7", "tmp_step_8", "step-9.tmp", "step-9.partial"];
    let scene = Scene::of(&[&hidden[..], &["step-1"]].concat());
    let shown = scene.mount();
    assert_eq!(shown.names(), ["latest", "step-1"]);
    assert_eq!(shown.latest().unwrap(), "step-1");
    assert!(hidden.iter().all(|name| !shown.path(name).exists()));
    let verified = scene.command(&["verify", "run", "--config-from", assets().to_str().unwrap()]);
    assert!(verified.status.success(), "{verified:?}");
    fs::rename(scene.step("tmp-step-7"), scene.step("step-7")).unwrap();
    within(|| (shown.latest().as_deref() == Some("step-7")).then_some(()));
}

#[test]
fn a_long_listing_has_each_name_once_whatever_happens_meanwhile() {
    need_fuse!();
    let scene = Scene::of(&["step-1"]);
    for number in 0..1000 {
        fs::create_dir(scene.step(&format!("empty-{number}"))).unwrap();
    }
    let metadata = example().join(".metadata");
    for number in 0..1000 {
        let step = scene.step(&format!("step-{}", number + 10));
        fs::create_dir(&step).unwrap();
        fs::hard_link(&metadata, step.join(".metadata"))
            .or_else(|_| fs::copy(&metadata, step.join(".metadata")).map(drop))
            .unwrap();
        scene.age(&format!("step-{}", number + 10), HOUR);
    }
    let shown = scene.mount();
    let mut listed: Vec<String> = Vec::new();
    for entry in fs::read_dir(shown.path("")).unwrap() {
        if listed.len() == 500 {
            fs::remove_dir_all(scene.step("step-10")).unwrap();
            fs::remove_dir_all(scene.step("step-1009")).unwrap();
            let are_gone = || {
                ["step-10", "step-1009"]
                    .iter()
                    .all(|step| !shown.path(step).exists())
            };
            within(|| are_gone().then_some(()));
        }
        listed.push(entry.unwrap().file_name().into_string().unwrap());
    }
    let count = listed.len();
    listed.sort();
    listed.dedup();
    assert_eq!(listed.len(), count, "a name was listed twice");
    assert!((1000..=1002).contains(&count), "{count}");
    assert_eq!(shown.opened(), 0);
}
