//! A view below a real overlayfs: programs that write beside their input.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::common::programs::*;
use crate::{need_fuse, need_root};

/// Mounts an overlay by the recipe of docs/consumers.md; what mount(8) complains of, where this machine has none.
fn overlay(stage: &Stage) -> Result<(), String> {
    let document = include_str!("../../../docs/consumers.md");
    let recipe = "mount -t overlay overlay -o lowerdir=/mnt/step-4000,upperdir=/scratch/up,workdir=/scratch/work /scratch/step-4000";
    assert!(document.contains(recipe));
    for folder in ["up", "work", "over"] {
        fs::create_dir(stage.other(folder)).unwrap();
    }
    let path = |name: &str| stage.other(name).to_str().unwrap().to_owned();
    let words = recipe
        .replace("/mnt/step-4000", &path("point"))
        .replace("/scratch/step-4000", &path("over"))
        .replace(
            "/scratch",
            stage.other("").to_str().unwrap().trim_end_matches('/'),
        );
    let mut words = words.split(' ');
    let output = Command::new(words.next().unwrap()).args(words).output();
    let output = output.map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// Whether the kernel lets this process mount an overlay of plain folders here.
fn has_overlays(stage: &Stage) -> bool {
    let folders = ["plain", "plain/low", "plain/up", "plain/work", "plain/over"];
    for folder in folders {
        fs::create_dir(stage.other(folder)).unwrap();
    }
    let mut mount = Command::new("mount");
    mount.args([
        "-t",
        "overlay",
        "overlay",
        "-o",
        "lowerdir=low,upperdir=up,workdir=work",
        "over",
    ]);
    mount.current_dir(stage.other("plain"));
    mount.output().is_ok_and(|output| output.status.success())
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

#[test]
fn a_program_writes_beside_a_view_through_an_overlay() {
    need_fuse!();
    need_root!();
    let stage = Stage::new();
    if !has_overlays(&stage) {
        eprintln!(
            "SKIPPED {}: no overlayfs can be mounted here",
            module_path!()
        );
        return;
    }
    let foreground = stage.mount();
    overlay(&stage).unwrap();
    let (over, up) = (stage.other("over"), stage.other("up"));
    let weights = fs::read(stage.weights()).unwrap();
    assert!(fs::read(over.join("model.safetensors")).unwrap() == weights);
    assert_eq!(names(&over), ["config.json", "model.safetensors"]);
    // A new file, a changed copy, and one that is removed.
    fs::write(over.join("model.gguf"), "new").unwrap();
    let config = fs::read_to_string(over.join("config.json")).unwrap();
    fs::write(over.join("config.json"), config.replace("llama", "mine")).unwrap();
    fs::remove_file(over.join("model.safetensors")).unwrap();
    assert_eq!(names(&over), ["config.json", "model.gguf"]);
    assert_eq!(
        names(&up),
        ["config.json", "model.gguf", "model.safetensors"]
    );
    assert!(
        fs::read_to_string(over.join("config.json"))
            .unwrap()
            .contains("mine")
    );
    // The view is as it was.
    assert_eq!(names(&stage.point()), ["config.json", "model.safetensors"]);
    assert_eq!(
        fs::read_to_string(stage.point().join("config.json")).unwrap(),
        config
    );
    assert!(fs::read(stage.weights()).unwrap() == weights);
    let umount = Command::new("umount").arg(&over).status().unwrap();
    assert!(umount.success());
    foreground.signal(libc::SIGINT);
    assert_eq!(foreground.wait().0, Some(0));
    assert_eq!(fs::read_to_string(up.join("model.gguf")).unwrap(), "new");
}
