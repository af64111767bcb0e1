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
    assert!(include_str!("../../docs/daily.md").contains(&recipe.join(" ")));
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
