//! Changes of the source and the destination while an export is stopped.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Output};

use super::export::*;
use crate::common::programs::*;
use crate::need_root;

/// Lets an export that was stopped go on to its end.
fn go_on(mut child: Child) -> Option<i32> {
    // SAFETY: kill takes numbers alone; the child has not been waited for.
    unsafe { libc::kill(child.id() as i32, libc::SIGCONT) };
    within(|| child.try_wait().unwrap()).code()
}

fn export(stage: &Stage) -> (Output, String) {
    let output = stage.run(&["export", "source", "out"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    (output, said)
}

/// Other weights of the same size, with the times of the first.
fn replace_keeping_times(stage: &Stage, in_place: bool) {
    let weights = stage.source().join("model.safetensors");
    let times = fs::metadata(&weights).unwrap().modified().unwrap();
    if !in_place {
        fs::remove_file(&weights).unwrap();
    }
    let config = fs::metadata(stage.source().join("config.json"))
        .unwrap()
        .modified()
        .unwrap();
    enlarge(stage, 192, 2);
    for (name, time) in [("model.safetensors", times), ("config.json", config)] {
        let file = File::options()
            .write(true)
            .open(stage.source().join(name))
            .unwrap();
        file.set_modified(time).unwrap();
    }
}

#[test]
fn a_source_of_equal_size_and_time_is_another_source() {
    for in_place in [false, true] {
        let stage = Stage::new();
        enlarge(&stage, 192, 1);
        interrupt(&stage);
        replace_keeping_times(&stage, in_place);
        let (output, said) = export(&stage);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert!(!said.contains("written before"), "{said}");
        let note = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(note.contains("it starts anew"), "{note}");
        let exported = fs::read(stage.other("out/model.safetensors")).unwrap();
        let source = fs::read(stage.source().join("model.safetensors")).unwrap();
        assert!(
            exported.ends_with(&source[source.len() - (192 << 20)..]),
            "in place: {in_place}"
        );
    }
}

#[test]
fn a_change_time_alone_starts_anew_and_says_so() {
    let stage = Stage::new();
    enlarge(&stage, 192, 1);
    interrupt(&stage);
    let weights = stage.source().join("model.safetensors");
    let mode = fs::metadata(&weights).unwrap().mode();
    fs::set_permissions(&weights, Permissions::from_mode(mode ^ 0o020)).unwrap();
    let (output, said) = export(&stage);
    let note = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(note.contains("its change time moved"), "{note}");
    assert!(
        output.status.success() && !said.contains("written before"),
        "{said}"
    );
}

#[test]
fn another_config_starts_anew_and_says_so() {
    let stage = Stage::new();
    enlarge(&stage, 192, 1);
    interrupt(&stage);
    let config = stage.source().join("config.json");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{text} ")).unwrap();
    let (output, said) = export(&stage);
    let note = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(note.contains("another config.json"), "{note}");
    assert!(
        output.status.success() && !said.contains("written before"),
        "{said}"
    );
}

#[test]
fn a_file_that_was_lost_is_written_again_whole() {
    let stage = Stage::new();
    enlarge(&stage, 192, 1);
    interrupt(&stage);
    fs::remove_file(stage.other(".out.ckptfs-export/files/model.safetensors")).unwrap();
    // Made again in its size by one that is killed before it has written any of it.
    interrupt(&stage);
    let (output, _) = export(&stage);
    assert!(output.status.success(), "{output:?}");
    let exported = fs::read(stage.other("out/model.safetensors")).unwrap();
    let source = fs::read(stage.source().join("model.safetensors")).unwrap();
    assert!(exported.ends_with(&source[source.len() - (192 << 20)..]));
}

#[test]
fn a_folder_of_another_user_under_the_path_of_the_temporary_one_is_not_written_to() {
    need_root!();
    let stage = Stage::new();
    enlarge(&stage, 192, 1);
    let victim = stage.other("victim");
    fs::write(&victim, vec![7; 1 << 20]).unwrap();
    chown(stage.other(""), Some(1001), Some(1001)).unwrap();
    let child = stopped(&stage);
    let script = "mv .out.ckptfs-export mine && mkdir -p .out.ckptfs-export/files \
        && ln -s ../../victim .out.ckptfs-export/files/model.safetensors && ln -s ../../victim .out.ckptfs-export/files/config.json \
        && ln -s ../../victim .out.ckptfs-export/files/SHA256SUMS";
    let mut other = Command::new("sh");
    other
        .args(["-c", script])
        .current_dir(stage.other(""))
        .uid(1001)
        .gid(1001);
    assert!(other.status().unwrap().success());
    assert_eq!(go_on(child), Some(0));
    assert!(fs::read(&victim).unwrap() == vec![7; 1 << 20]);
    let planted = stage.other(".out.ckptfs-export/files/model.safetensors");
    assert!(planted.is_symlink() && stage.other("out/model.safetensors").is_file());
}

#[test]
fn what_lies_in_the_way_is_neither_taken_nor_removed() {
    need_root!();
    let stage = Stage::new();
    let staging = stage.other(".out.ckptfs-export");
    let refused = || {
        let (output, _) = export(&stage);
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        complaint(&output)
    };
    // A folder of another user, one of root's with other things in it, and a link.
    fs::create_dir_all(staging.join("files")).unwrap();
    fs::set_permissions(&staging, Permissions::from_mode(0o700)).unwrap();
    chown(&staging, Some(1001), Some(1001)).unwrap();
    assert!(refused().contains("is in the way"));
    chown(&staging, Some(0), Some(0)).unwrap();
    fs::write(staging.join("precious"), "").unwrap();
    assert!(refused().contains("is in the way"));
    assert!(staging.join("precious").is_file());
    fs::rename(&staging, stage.other("aside")).unwrap();
    symlink("aside", &staging).unwrap();
    refused();
    assert!(stage.other("aside/precious").is_file());
}

#[test]
fn a_directory_that_comes_under_the_name_of_the_destination_stays() {
    let stage = Stage::new();
    enlarge(&stage, 192, 1);
    let child = stopped(&stage);
    fs::create_dir(stage.other("out")).unwrap();
    let inode = fs::metadata(stage.other("out")).unwrap().ino();
    assert_eq!(go_on(child), Some(3));
    assert_eq!(fs::metadata(stage.other("out")).unwrap().ino(), inode);
    assert_eq!(fs::read_dir(stage.other("out")).unwrap().count(), 0);
    // What was written is of use once there is room for its name.
    fs::remove_dir(stage.other("out")).unwrap();
    let (output, said) = export(&stage);
    assert!(
        output.status.success() && said.contains("written before"),
        "{output:?}"
    );
}

#[test]
fn a_log_and_a_page_in_a_folder_of_another_user_follow_no_link() {
    need_root!();
    let stage = Stage::new();
    let (victim, theirs) = (stage.other("victim"), stage.other("theirs"));
    fs::write(&victim, "precious").unwrap();
    fs::create_dir(&theirs).unwrap();
    symlink(&victim, theirs.join("log")).unwrap();
    symlink(stage.source(), theirs.join("folder")).unwrap();
    chown(&theirs, Some(1001), Some(1001)).unwrap();
    let log = |name: &str| stage.run(&["mount", "--daemon", "--log-file", name, "source", "point"]);
    for name in ["theirs/log", "theirs/folder/log"] {
        let output = log(name);
        assert!(!output.status.success());
        assert!(complaint(&output).contains("a link that another user may change"));
    }
    let output = stage.run(&["inspect", "source", "--html", "theirs/folder/page.html"]);
    assert!(!output.status.success() && !stage.source().join("page.html").exists());
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    assert!(!stage.is_mounted());
}
