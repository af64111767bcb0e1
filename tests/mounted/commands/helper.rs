//! The name `mount.ckptfs`, under which mount(8) calls the program.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use crate::common::programs::*;
use crate::need_fuse;

#[test]
fn a_line_of_fstab_mounts() {
    need_fuse!();
    let stage = Stage::new();
    let helper = stage.other("mount.ckptfs");
    symlink(env!("CARGO_BIN_EXE_ckptfs"), &helper).unwrap();
    let run = |options: &str| {
        let mut command = Command::new(&helper);
        command.arg(stage.source()).arg(stage.point());
        command.args(["-n", "-o", options]).output().unwrap()
    };
    let output = run("rw,noauto,_netdev,x-systemd.automount,as=npy,max_shard_size=5GB");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(stage.point().join("model/norm/weight.npy").exists());
    assert_eq!(stage.run(&["umount", "point"]).status.code(), Some(0));
    let output = run("no_such_option");
    assert_eq!(output.status.code(), Some(2));
    assert!(complaint(&output).contains("-o: unexpected argument '--no-such-option'"));
}

#[test]
fn the_options_of_mount_are_those_of_the_command_too() {
    need_fuse!();
    let stage = Stage::new();
    let mount = ["mount", "source", "point", "-o", "daemon,ro,as=npy"];
    let output = stage.run(&mount);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(stage.point().join("model/norm/weight.npy").exists());
    assert_eq!(stage.run(&["umount", "point"]).status.code(), Some(0));
    for (options, said) in [
        ("no_such", "--no-such"),
        ("dtype=bf16,dtype=f32", "multiple times"),
    ] {
        let output = stage.run(&["mount", "-o", options, "--", "source", "point"]);
        assert_eq!(output.status.code(), Some(2));
        let text = complaint(&output);
        assert!(text.contains(said), "{text}");
    }
}

/// The whole way: mount(8) finds the helper by the type of the filesystem.
#[test]
fn mount_finds_the_helper() {
    need_fuse!();
    let stage = Stage::new();
    let installed = "/sbin/mount.ckptfs";
    if !is_root() || symlink(env!("CARGO_BIN_EXE_ckptfs"), installed).is_err() {
        eprintln!("SKIPPED: {installed} cannot be made");
        return;
    }
    let mut mount = Command::new("mount");
    mount.args(["-t", "ckptfs", "-o", "allow_other"]);
    let output = mount.arg(stage.source()).arg(stage.point()).output();
    fs::remove_file(installed).unwrap();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(stage.weights().exists());
    let status = Command::new("umount").arg(stage.point()).status().unwrap();
    assert!(status.success() && !stage.is_mounted());
}
