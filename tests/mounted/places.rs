//! Unusual places: user namespaces, machines without a helper, and sources whose filesystem goes away.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

use crate::common::programs::*;
use crate::{need_fuse, need_root};

/// Namespaces of mounts and processes: whatever a script leaves there goes with it.
const OWN: &[&str] = &["--mount", "--pid", "--fork", "--mount-proc"];
const OWN_USERS: &[&str] = &[
    "--user",
    "--map-root-user",
    "--mount",
    "--pid",
    "--fork",
    "--mount-proc",
];

/// `script` in namespaces of its own. `$1` is ckptfs.
fn apart(stage: &Stage, namespaces: &[&str], script: &str) -> Output {
    let mut command = Command::new("unshare");
    let script = format!("set -eu; {script}");
    command.args(namespaces).args(["sh", "-c", &script, "sh"]);
    command.arg(env!("CARGO_BIN_EXE_ckptfs"));
    command.current_dir(stage.other("")).output().unwrap()
}

#[track_caller]
fn succeeds(stage: &Stage, namespaces: &[&str], script: &str) {
    let output = apart(stage, namespaces, script);
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn root_of_a_user_namespace_mounts_without_a_helper() {
    need_fuse!();
    let stage = Stage::new();
    let possible = apart(&stage, OWN_USERS, "mount -t tmpfs none /mnt");
    if !possible.status.success() {
        eprintln!("SKIPPED: no user namespaces: {possible:?}");
        return;
    }
    let script = "PATH=/usr/bin:/bin \"$1\" mount --daemon source point
        cmp point/model.safetensors source/model.safetensors
        \"$1\" status | grep -q point
        \"$1\" umount point
        test -z \"$(ls point)\"";
    succeeds(&stage, OWN_USERS, script);
}

#[test]
fn a_user_of_a_user_namespace_is_told_what_is_missing() {
    need_fuse!();
    let stage = Stage::new();
    let output = apart(&stage, &["--user"], "\"$1\" mount source point");
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let said = complaint(&output);
    let words = ["/dev/fuse", "fusermount3", "not permitted", "source"];
    assert!(words.iter().any(|word| said.contains(word)), "{said}");
}

/// Runs `ckptfs mount` as a user, with `cover` in the place of each helper, and returns its message.
fn said_under(cover: &str) -> String {
    let stage = Stage::new();
    fs::set_permissions(stage.other(""), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(stage.point(), fs::Permissions::from_mode(0o777)).unwrap();
    stage.copy_of_program();
    let script = format!(
        "mount -t tmpfs none /dev
        mknod -m 666 /dev/fuse c 10 229
        mknod -m 666 /dev/null c 1 3
        chmod -R a+r source
        touch denied; chmod 644 denied
        for helper in fusermount3 fusermount; do
            for folder in /usr/bin /bin /usr/sbin /sbin; do
                test ! -f $folder/$helper || mount --bind {cover} $folder/$helper
            done
        done
        exec setpriv --reuid 65534 --regid 65534 --clear-groups ./ckptfs mount source point"
    );
    let output = apart(&stage, OWN, &script);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    complaint(&output)
}

#[test]
fn a_user_without_the_helper_is_told_how_to_install_it() {
    need_fuse!();
    need_root!();
    let said = said_under("/dev/null");
    assert!(
        said.contains("fusermount3") && said.contains("apt install fuse3"),
        "{said}"
    );
}

#[test]
fn a_user_who_may_not_run_the_helper_is_told_so() {
    need_fuse!();
    need_root!();
    let said = said_under("denied");
    assert!(
        said.contains("fusermount3 may not be run by this user"),
        "{said}"
    );
}

#[test]
fn nothing_is_written_anywhere() {
    need_fuse!();
    need_root!();
    let stage = Stage::new();
    let script = "for place in $(cut -d' ' -f5 /proc/self/mountinfo); do
            mount -o remount,bind,ro $place 2>/dev/null || true
        done
        if touch new 2>/dev/null; then exit 1; fi
        \"$1\" inspect source > /dev/null
        \"$1\" verify source > /dev/null
        \"$1\" mount --daemon source point
        cmp point/model.safetensors source/model.safetensors
        \"$1\" umount point";
    succeeds(&stage, OWN, script);
}

/// A copy of the source on a filesystem of its own, mounted, and `after` with the mount there.
fn on_a_filesystem_of_its_own(filesystem: &str, after: &str) {
    let stage = Stage::new();
    let script = format!(
        "mkdir own
        {filesystem}
        cp -r source own/source
        \"$1\" mount --daemon --log-file log own/source point
        cmp -n 4096 point/model.safetensors source/model.safetensors
        {after}
        \"$1\" umount point"
    );
    succeeds(&stage, OWN, &script);
}

const SHOWS_OLD_BYTES: &str = "cmp point/model.safetensors source/model.safetensors
        cmp point/config.json source/config.json";

#[test]
fn a_source_whose_filesystem_is_unmounted_lazily_is_served_on() {
    need_fuse!();
    need_root!();
    let tmpfs = "mount -t tmpfs none own";
    on_a_filesystem_of_its_own(tmpfs, &format!("umount -l own; {SHOWS_OLD_BYTES}"));
}

#[test]
fn a_source_under_a_new_filesystem_is_still_the_old_one() {
    need_fuse!();
    need_root!();
    let other = "umount -l own
        mount -t tmpfs none own
        mkdir own/source
        head -c 20000000 /dev/urandom > own/source/model.safetensors
        echo '{}' > own/source/config.json";
    on_a_filesystem_of_its_own(
        "mount -t tmpfs none own",
        &format!("{other}; {SHOWS_OLD_BYTES}"),
    );
}

#[test]
fn a_filesystem_in_use_by_a_view_is_busy() {
    need_fuse!();
    need_root!();
    on_a_filesystem_of_its_own(
        "mount -t tmpfs none own",
        &format!("if umount own 2>/dev/null; then exit 1; fi; {SHOWS_OLD_BYTES}"),
    );
}

#[test]
fn a_source_remounted_read_only_is_served_on() {
    need_fuse!();
    need_root!();
    on_a_filesystem_of_its_own(
        "mount -t tmpfs none own",
        &format!("mount -o remount,ro own; {SHOWS_OLD_BYTES}"),
    );
}

#[test]
fn a_disk_that_is_pulled_gives_errors_and_no_hang() {
    need_fuse!();
    need_root!();
    let stage = Stage::new();
    let possible = apart(
        &stage,
        OWN,
        "truncate -s 64M try; mkfs.ext4 -q try; mount -o loop try point",
    );
    if !possible.status.success() {
        eprintln!("SKIPPED: no loop devices: {possible:?}");
        return;
    }
    // ext4 is shut down as it is when its disk fails: from then on it answers nothing but errors.
    let disk = "truncate -s 64M disk; mkfs.ext4 -q disk; mount -o loop disk own";
    let pulled = "sync -f own
        dd if=own/source/model.safetensors iflag=nocache count=0 2>/dev/null
        python3 -c 'import fcntl, os
file = os.open(\"own\", os.O_RDONLY)
fcntl.ioctl(file, 0x8004587D, (2).to_bytes(4, \"little\"))'
        timeout 20 dd if=point/model.safetensors of=/dev/null bs=1M iflag=direct 2>errors || true
        grep -q 'Input/output error' errors
        timeout 20 stat point/model.safetensors > /dev/null
        grep -q 'model.safetensors' log";
    on_a_filesystem_of_its_own(disk, pulled);
}
