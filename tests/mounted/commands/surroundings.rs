//! Where the program runs beside a terminal: in a container, under systemd.

use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use crate::common::programs::*;
use crate::{need_fuse, need_root};

/// The program on `stage` in a container over the machine's own files, with `more` of what docs/daily.md tells to pass.
fn contained(stage: &Stage, more: &[&str], script: &str) -> Option<Output> {
    let mut podman = Command::new("podman");
    podman.args(["--runtime", "runc", "run", "--rm", "--network", "none"]);
    podman.args([
        "--ulimit",
        "nofile=1024:1024",
        "--ulimit",
        "nproc=1024:1024",
    ]);
    podman
        .args(more)
        .args(["--rootfs", "/:O", "sh", "-c", script, "sh"]);
    podman.arg(env!("CARGO_BIN_EXE_ckptfs")).arg(stage.source());
    podman.output().ok()
}

const MOUNT: &str = "mkdir /tmp/view && \"$1\" mount --daemon -- \"$2\" /tmp/view && cmp /tmp/view/model.safetensors \"$2\"/model.safetensors";

#[test]
fn a_container_with_the_device_and_the_capability_mounts() {
    need_fuse!();
    need_root!();
    let stage = Stage::new();
    if !contained(&stage, &[], "true").is_some_and(|output| output.status.success()) {
        eprintln!("SKIPPED: podman and runc cannot run a container here");
        return;
    }
    let recipe = ["--device", "/dev/fuse", "--cap-add", "SYS_ADMIN"];
    assert!(include_str!("../../../docs/daily.md").contains(&recipe.join(" ")));
    let output = contained(&stage, &recipe, MOUNT).unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let output = contained(&stage, &[], MOUNT).unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(complaint(&output).contains("/dev/fuse: is missing"));
}

#[test]
fn systemd_is_told_when_the_mount_answers() {
    need_fuse!();
    let stage = Stage::new();
    let socket = UnixDatagram::bind(stage.other("notify")).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(10)))
        .unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ckptfs"));
    command.env("NOTIFY_SOCKET", stage.other("notify"));
    let mount = stage.mount_by(command);
    let mut message = [0; 64];
    let length = within(|| match socket.recv(&mut message) {
        Ok(length) => Some(length),
        Err(error) => {
            assert!(matches!(
                error.kind(),
                ErrorKind::WouldBlock | ErrorKind::TimedOut
            ));
            None
        }
    });
    assert_eq!(&message[..length], b"READY=1");
    assert!(stage.weights().exists());
    mount.signal(libc::SIGTERM);
    assert_eq!(mount.wait().0, Some(0));
}

#[test]
fn man_pages_are_written_where_there_is_no_directory_yet() {
    let stage = Stage::new();
    let output = stage.run(&["man", "share/man1"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let page = std::fs::read_to_string(stage.other("share/man1/ckptfs-mount.1")).unwrap();
    assert!(page.contains("config\\-from"), "{page}");
}

/// A user's systemd in namespaces of its own: it starts the unit, brings it back after a crash, and stops it. `$1` is the home.
const LIVE: &str = r#"set -eu
    mount -t tmpfs none /run
    mkdir -p /run/systemd/system /run/user/0
    export HOME="$1" XDG_RUNTIME_DIR=/run/user/0 SYSTEMD_LOG_TARGET=null
    until_true() { for try in $(seq 1200); do "$@" && return; sleep 0.1; done; echo "in vain: $*" >&2; exit 1; }
    is_up() { systemctl --user is-system-running | grep -q running; }
    /lib/systemd/systemd --user &
    until_true is_up 2>/dev/null
    unit=ckptfs@view
    is_shown() { cmp -s "$HOME/point/model.safetensors" "$HOME/source/model.safetensors"; }
    is_another() { test "$(systemctl --user show -P MainPID $unit)" != "$first" && is_shown; }
    systemctl --user start $unit
    is_shown
    first=$(systemctl --user show -P MainPID $unit)
    kill -KILL $first
    until_true is_another
    systemctl --user stop $unit
    test -z "$(ls $HOME/point)""#;

#[test]
fn the_unit_of_systemd_mounts_comes_back_and_unmounts() {
    need_fuse!();
    need_root!();
    let stage = Stage::new();
    let home = stage.other("");
    let apart = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--mount-proc", "sh", "-c"]);
        command.args([script, "sh"]).arg(&home).output()
    };
    if !Path::new("/lib/systemd/systemd").exists()
        || !apart("true").is_ok_and(|it| it.status.success())
    {
        eprintln!("SKIPPED: no systemd, or no namespace for it");
        return;
    }
    let make = |path: &str, bytes: &[u8]| {
        let path = home.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    };
    make(
        ".config/systemd/user/ckptfs@.service",
        include_bytes!("../../../packaging/ckptfs@.service"),
    );
    let conf = format!(
        "SOURCE={0}/source\nMOUNTPOINT={0}/point\nOPTIONS=--threads 2\n",
        home.display()
    );
    make(".config/ckptfs/view.conf", conf.as_bytes());
    std::fs::create_dir_all(home.join(".cargo/bin")).unwrap();
    std::fs::copy(env!("CARGO_BIN_EXE_ckptfs"), home.join(".cargo/bin/ckptfs")).unwrap();
    let output = apart(LIVE).unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn systemd_finds_no_fault_in_the_unit() {
    let stage = Stage::new();
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/ckptfs@.service");
    std::fs::copy(unit, stage.other("ckptfs@view.service")).unwrap();
    let mut verify = Command::new("systemd-analyze");
    verify
        .args(["verify", "--user", "--man=no"])
        .arg(stage.other("ckptfs@view.service"));
    let Ok(output) = verify.env("XDG_RUNTIME_DIR", stage.other("")).output() else {
        eprintln!("SKIPPED: no program systemd-analyze");
        return;
    };
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{output:?}"
    );
}
