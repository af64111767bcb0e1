//! Runs, and folders taken for runs, that lead elsewhere or in a circle.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;

use super::make::tensors::named;
use super::scene::*;

/// Names below which checkpoints are looked for.
const INNER: [&str; 8] = [
    "dist_ckpt",
    "model",
    "weights",
    "pytorch_model_fsdp_0",
    "original",
    "consolidated",
    "actor",
    "critic",
];

const TRACKER: &str = "latest_checkpointed_iteration.txt";

/// A run of one step.
fn run() -> Scene {
    let step = Scene::empty().with("step-1/config.json", r#"{"model_type":"free"}"#);
    step.with("step-1/model.safetensors", named(&["a"]))
}

fn fifo(scene: Scene, name: &str) -> Scene {
    let path = CString::new(scene.path(name).as_os_str().as_bytes()).unwrap();
    // SAFETY: `path` ends in a zero byte and outlives the call.
    assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o644) }, 0);
    scene
}

#[test]
fn links_in_a_circle_are_followed_once() {
    let circle = |scene: Scene| {
        INNER
            .iter()
            .fold(scene, |scene, name| scene.link(name, "."))
    };
    refused(circle(Scene::empty()), &["holds no checkpoint"]);
    let steps = |scene| {
        (2..100).fold(scene, |scene: Scene, i| {
            scene.link(&format!("step-{i}"), ".")
        })
    };
    refused(steps(circle(Scene::empty())), &["holds no checkpoint"]);
    shown(steps(circle(run())), &["\"step-1\""]);
    let pair = Scene::empty().with("a/x", "").with("b/x", "");
    let pair = INNER.iter().fold(pair, |scene, name| {
        let scene = scene.link(&format!("a/{name}"), "../b");
        scene.link(&format!("b/{name}"), "../a")
    });
    refused(pair, &["holds no checkpoint"]);
}

#[test]
fn trackers_that_are_no_numbers_are_passed_over() {
    shown(run().link(TRACKER, "../secret"), &["\"step-1\""]);
    shown(run().link(TRACKER, "/dev/zero"), &["\"step-1\""]);
    shown(run().sparse(TRACKER, b"1", 1 << 30), &["\"step-1\""]);
    shown(fifo(run(), TRACKER), &["\"step-1\""]);
    for text in [
        "",
        "-1",
        "99999999999999999999999",
        "release",
        "1\n2",
        "\u{1b}[31m",
    ] {
        shown(run().with(TRACKER, text), &["\"step-1\""]);
    }
}

#[test]
fn a_step_that_leads_out_of_the_run_is_not_looked_into() {
    let scene = run().with("../elsewhere/model.safetensors", named(&["b"]));
    shown(
        scene
            .link("step-2", "../elsewhere")
            .link("step-3", "loop")
            .link("loop", "loop"),
        &["\"step-1\""],
    );
}

#[test]
fn a_file_or_link_named_checkpoint_makes_no_run() {
    let model = || Scene::new().with("model.safetensors", named(&["a"]));
    shown(
        model().with("checkpoint", "model_checkpoint_path: x"),
        &["\"a\""],
    );
    shown(model().link("checkpoints", "../secret"), &["\"a\""]);
    let run = run().with("checkpoint", "");
    shown(run, &["\"step-1\""]);
}

#[test]
fn the_revision_of_a_hub_cache_leads_nowhere_else() {
    let model = || Scene::empty().with("model.safetensors", named(&["a"]));
    let cache = |scene: Scene| {
        let config = r#"{"model_type":"free"}"#;
        scene
            .with("cache/snapshots/0123/config.json", config)
            .with("cache/refs/x", "")
            .asked("--config-from", "cache")
    };
    shown(
        cache(model()).with("cache/refs/main", "0123\n"),
        &["\"free\""],
    );
    for revision in [
        "../..",
        "/etc",
        "..",
        "",
        ".",
        "0123/../../..",
        "a\0b",
        "missing",
        "\u{1b}[31m",
    ] {
        let scene = cache(model()).with("cache/refs/main", revision);
        let answer = scene.inspect();
        assert!(
            matches!(answer.code, Some(1 | 4)),
            "{revision:?}: {answer:?}"
        );
        assert_eq!(answer.complaint.lines().count(), 1, "{answer:?}");
    }
    refused(
        cache(model()).sparse("cache/refs/main", b"0123", 1 << 30),
        &["refs/main"],
    );
    refused(fifo(cache(model()), "cache/refs/main"), &["refs/main"]);
}
