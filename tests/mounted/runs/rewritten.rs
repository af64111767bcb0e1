//! Saves that are written over older ones, and all that looks alike and is none.

use std::fs::{self, File, FileTimes};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use ckptfs::checkpoint::{self, Opening};
use ckptfs::run::Run;

use ckptfs::source::Budget;

use super::scene::*;
use crate::need_fuse;

const TRACKER: &str = "latest_checkpointed_iteration.txt";

/// Times of files are as coarse as the kernel's clock.
fn tick() {
    thread::sleep(Duration::from_millis(25));
}

/// Ends the test, saying so, where the filesystem of the tests does not tell when a file was made.
macro_rules! need_birth_times {
    () => {
        if fs::metadata(std::env::temp_dir())
            .unwrap()
            .created()
            .is_err()
        {
            eprintln!("SKIPPED {}: no birth times", module_path!());
            return;
        }
    };
}

/// Saves the files of `from` as a training does: `marker` after all others.
fn save(scene: &Scene, from: &Path, name: &str, marker: &str) {
    let to = scene.step(name);
    fs::create_dir_all(&to).unwrap();
    let names = names(from);
    let (last, first): (Vec<_>, Vec<_>) = names.iter().partition(|name| *name == marker);
    for name in first.iter().chain(&last) {
        if *name == marker {
            tick();
        }
        if from.join(name).is_file() {
            fs::copy(from.join(name), to.join(name)).unwrap();
        }
    }
    tick();
}

/// Writes the bytes of a file again, in place.
fn rewrite(path: &Path) {
    let bytes = fs::read(path).unwrap();
    File::create(path).unwrap().write_all(&bytes).unwrap();
}

fn run(scene: &Scene) -> Run {
    Run::find(&scene.run()).unwrap().unwrap()
}

fn is_rewritten(run: &Run, name: &str) -> bool {
    run.save(name).unwrap().rewritten.is_some()
}

fn sharded() -> std::path::PathBuf {
    project("tests/data/hf-bin-sharded/source")
}

const INDEX: &str = "pytorch_model.bin.index.json";

#[test]
fn data_made_before_the_marker_and_written_after_it_is_refused_however_long_it_rests() {
    need_birth_times!();
    let scene = Scene::new();
    save(&scene, &example(), "step-1", ".metadata");
    save(&scene, &sharded(), "step-2", INDEX);
    for (step, marker, data) in [
        ("step-1", ".metadata", "__1_0.distcp"),
        ("step-2", INDEX, "pytorch_model-00002-of-00004.bin"),
    ] {
        assert!(!is_rewritten(&run(&scene), step), "{step}");
        let path = scene.step(step).join(data);
        rewrite(&path);
        let open = |accepts_rewritten| {
            let opening = Opening {
                accepts_rewritten,
                ..Opening::default()
            };
            checkpoint::open_with(&scene.step(step), &opening)
        };
        let line = open(false).unwrap_err().to_string();
        for part in [data, marker, "UTC", "--accept-save"] {
            assert!(line.contains(part), "{line}");
        }
        assert!(open(true).is_ok());
        assert!(is_rewritten(&run(&scene), step));
        assert!(!is_rewritten(
            &run(&scene).opened_as(true, Budget::default()),
            step
        ));
        // What a training that goes on ends with.
        tick();
        rewrite(&scene.step(step).join(marker));
        assert!(open(false).is_ok());
        assert!(!is_rewritten(&run(&scene), step));
    }
}

/// overlayfs copies a file up where it is written to, and gives it a new birth time.
#[test]
fn a_save_that_is_written_over_through_an_overlay_is_not_shown_as_a_copy() {
    need_birth_times!();
    let scene = Scene::new();
    save(&scene, &example(), "step-1", ".metadata");
    for folder in ["up", "work", "over"] {
        fs::create_dir(scene.path(folder)).unwrap();
    }
    let path = |name: &str| scene.path(name).display().to_string();
    let (low, up, work) = (scene.run().display().to_string(), path("up"), path("work"));
    let layers = format!("lowerdir={low},upperdir={up},workdir={work}");
    let mount = ["-t", "overlay", "overlay", "-o", &layers, &path("over")];
    let mounted = Command::new("mount").args(mount).output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        eprintln!(
            "SKIPPED {}: no overlayfs can be mounted here",
            module_path!()
        );
        return;
    }
    rewrite(&scene.path("over/step-1/__1_0.distcp"));
    let opened = checkpoint::open(&scene.path("over/step-1"), None);
    let is_doubted = match opened {
        Ok(checkpoint) => !checkpoint.warnings.is_empty(),
        Err(_) => true,
    };
    Command::new("umount").arg(path("over")).status().unwrap();
    assert!(is_doubted);
}

#[test]
fn a_run_shows_why_a_save_that_is_written_over_is_not_shown() {
    need_fuse!();
    need_birth_times!();
    let scene = Scene::of(&["step-1"]);
    save(&scene, &example(), "step-2", ".metadata");
    rewrite(&scene.step("step-2/__0_0.distcp"));
    let shown = scene.mount();
    assert_eq!(shown.names(), ["latest", "step-1", "step-2"]);
    let why = shown.error("step-2");
    assert!(why.contains("__0_0.distcp: was written"), "{why}");
    assert!(!shown.weights("step-1").is_empty());
}

#[test]
fn a_save_that_was_seen_whole_and_changes_under_its_marker_is_not_shown() {
    need_fuse!();
    let scene = Scene::new();
    let to = scene.step("step-1");
    // A copy that begins with the marker: no birth time tells of a later write.
    fs::create_dir_all(&to).unwrap();
    for name in [".metadata", "__0_0.distcp", "__1_0.distcp"] {
        fs::copy(example().join(name), to.join(name)).unwrap();
        tick();
    }
    let shown = scene.mount();
    let weights = shown.weights("step-1");
    let inode = shown.inode("step-1");
    rewrite(&to.join("__1_0.distcp"));
    crate::common::programs::within(|| (shown.inode("step-1") != inode).then_some(()));
    assert!(shown.error("step-1").contains("was seen with all its data"));
    tick();
    rewrite(&to.join(".metadata"));
    let read = || fs::read(shown.path("step-1/model.safetensors")).ok();
    assert!(crate::common::programs::within(read) == weights);
}

#[test]
fn a_save_below_the_number_of_its_run_is_marked_by_it() {
    need_birth_times!();
    let verl = project("tests/data/verl-fsdp2-w2/source");
    for (tracker, text) in [(TRACKER, "9"), ("latest", "global_step_9")] {
        let scene = Scene::new();
        for step in ["global_step_5/actor", "global_step_9/actor"] {
            scene.copy(&verl, step);
        }
        tick();
        scene.write(tracker, text);
        tick();
        let run = run(&scene);
        assert!(!is_rewritten(&run, "global_step_5"));
        let data = scene.step("global_step_5/actor/model_world_size_2_rank_0.pt");
        rewrite(&data);
        assert!(is_rewritten(&run, "global_step_5"), "{tracker}");
        assert!(!is_rewritten(&run, "global_step_9"), "{tracker}");
        for path in ["global_step_5", "global_step_5/actor"] {
            let line = open(&scene.step(path)).unwrap_err().to_string();
            assert!(line.contains(tracker), "{line}");
        }
        tick();
        scene.write(tracker, &text.replace('9', "5"));
        assert!(!is_rewritten(&run, "global_step_5"), "{tracker}");
    }
}

#[test]
fn deepspeeds_saves_are_marked_by_latest_and_the_one_that_it_names_by_the_first_rank() {
    need_birth_times!();
    let of_rank = |rank: usize| format!("zero_pp_rank_{rank}_mp_rank_00_optim_states.pt");
    for (step, rank, expected) in [
        ("global_step5", 0, true),
        ("global_step5", 1, true),
        ("global_step10", 0, true),
        ("global_step10", 1, false),
    ] {
        let scene = Scene::new();
        for step in ["global_step5", "global_step10"] {
            fs::create_dir(scene.step(step)).unwrap();
            scene.write(&format!("{step}/mp_rank_00_model_states.pt"), "model");
            (0..2).for_each(|rank| scene.write(&format!("{step}/{}", of_rank(rank)), "optim"));
        }
        tick();
        scene.write("latest", "global_step10");
        tick();
        let run = run(&scene);
        assert!(!is_rewritten(&run, step));
        rewrite(&scene.step(step).join(of_rank(rank)));
        assert_eq!(is_rewritten(&run, step), expected, "{step} {rank}");
        // Half an hour after latest it is no slow rank's.
        let latest = File::open(scene.step("latest")).unwrap();
        let written = latest.metadata().unwrap().modified().unwrap();
        if !expected {
            let late = written + Duration::from_secs(1802);
            let data = File::open(scene.step(step).join(of_rank(rank))).unwrap();
            data.set_modified(late).unwrap();
            assert!(is_rewritten(&run, step));
        }
        tick();
        scene.write("latest", "global_step5");
        assert!(!is_rewritten(&run, "global_step5"), "{rank}");
    }
}

#[test]
fn a_save_above_the_number_of_its_run_is_refused_while_it_is_written_and_then_warned_of() {
    let scene = Scene::new();
    let verl = project("tests/data/verl-fsdp2-w2/source");
    scene.copy(&verl, "global_step_9/actor");
    scene.write(TRACKER, "5");
    let path = scene.step("global_step_9/actor");
    let open = |accepts_rewritten| {
        let opening = Opening {
            accepts_rewritten,
            ..Opening::default()
        };
        checkpoint::open_with(&path, &opening)
    };
    let line = open(false).unwrap_err().to_string();
    for part in [TRACKER, "names 5", "--accept-save"] {
        assert!(line.contains(part), "{line}");
    }
    assert!(open(true).unwrap().warnings.is_empty());
    scene.age("global_step_9/actor", Duration::from_secs(20));
    let warnings = open(false).unwrap().warnings;
    assert!(warnings[0].contains("names 5"), "{warnings:?}");
    scene.write(TRACKER, "9");
    assert!(open(false).unwrap().warnings.is_empty());
}

/// Runs a program of the system; false where it is not installed.
fn does(program: &str, arguments: &[&str], folder: &Path) -> bool {
    let mut command = Command::new(program);
    match command.args(arguments).current_dir(folder).status() {
        Ok(status) => {
            assert!(status.success(), "{program}");
            true
        }
        Err(_) => false,
    }
}

#[test]
fn copies_links_and_attributes_are_no_writes() {
    need_birth_times!();
    let scene = Scene::new();
    save(&scene, &example(), "step-1", ".metadata");
    tick();
    let shell = |line: &str| does("sh", &["-c", line], &scene.run());
    let copies: [(&str, &dyn Fn() -> bool); 7] = [
        ("step-2", &|| shell("cp -r step-1 step-2")),
        ("step-3", &|| shell("cp -a step-1 step-3")),
        ("step-4", &|| shell("cp -rl step-1 step-4")),
        ("step-5", &|| {
            shell("mkdir step-5 && tar -C step-1 -cf - . | tar -C step-5 -xf -")
        }),
        ("step-6", &|| {
            does("rsync", &["-a", "step-1/", "step-6"], &scene.run())
        }),
        ("step-7", &|| {
            // Data first, then the marker, then data, with the times of the copy.
            shell(
                "mkdir step-7 && cp step-1/__0* step-7 && cp step-1/.metadata step-7 && sleep 0.05 && cp step-1/__1* step-7",
            )
        }),
        ("step-1", &|| {
            shell("chmod 600 step-1/__* && cat step-1/__* > /dev/null && touch -a step-1/__*")
        }),
    ];
    for (step, make) in copies {
        if make() {
            let run = run(&scene);
            assert!(!is_rewritten(&run, step), "{step}");
            assert!(run.save(step).unwrap().has_ended, "{step}");
            open(&scene.step(step)).unwrap();
        }
    }
}

#[test]
fn a_copy_that_ends_with_older_times_changes_nothing() {
    let scene = Scene::of(&["step-1"]);
    let run = run(&scene);
    assert!(run.save("step-1").unwrap().has_ended);
    let data = File::options()
        .write(true)
        .open(scene.step("step-1/__0_0.distcp"))
        .unwrap();
    let before = data.metadata().unwrap().modified().unwrap() - Duration::from_secs(500);
    data.set_times(FileTimes::new().set_modified(before))
        .unwrap();
    let save = run.save("step-1").unwrap();
    assert!(save.has_ended && save.rewritten.is_none());
}

#[test]
fn files_of_a_hub_download_arrive_in_any_order() {
    need_birth_times!();
    let scene = Scene::new();
    save(&scene, &sharded(), "step-1", INDEX);
    let shard = "pytorch_model-00003-of-00004.bin";
    rewrite(&scene.step("step-1").join(shard));
    assert!(checkpoint::open(&scene.step("step-1"), None).is_err());
    let records = scene.step("step-1/.cache/huggingface/download");
    fs::create_dir_all(&records).unwrap();
    let now = std::time::SystemTime::now();
    let now = now.duration_since(std::time::UNIX_EPOCH).unwrap();
    let record = |seconds: f64| {
        let text = format!("0123abcd\n\"etag\"\n{seconds}\n");
        fs::write(records.join(format!("{shard}.metadata")), text).unwrap();
    };
    record(now.as_secs_f64());
    checkpoint::open(&scene.step("step-1"), None).unwrap();
    record(now.as_secs_f64() - 60.0);
    assert!(checkpoint::open(&scene.step("step-1"), None).is_err());
}

#[test]
fn a_change_of_attributes_alone_opens_a_save_anew() {
    need_fuse!();
    let scene = Scene::of(&["step-1"]);
    let shown = scene.mount();
    let (inode, weights) = (shown.inode("step-1"), shown.weights("step-1"));
    tick();
    let data = scene.step("step-1/__0_0.distcp");
    fs::rename(&data, scene.step("step-1/moved")).unwrap();
    fs::rename(scene.step("step-1/moved"), &data).unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o640)).unwrap();
    crate::common::programs::within(|| (shown.inode("step-1") != inode).then_some(()));
    assert!(shown.weights("step-1") == weights);
}
