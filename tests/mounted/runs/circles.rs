//! Runs that hold a view of themselves: by a link, or by a mount that shows in two places.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::scene::*;
use crate::{need_fuse, need_root};

/// Longest that a listing may take.
const PATIENCE: Duration = Duration::from_secs(120);

fn shell(scene: &Scene, script: &str) -> bool {
    let mut shell = Command::new("sh");
    shell.current_dir(scene.path("")).args(["-c", script]);
    shell.stderr(Stdio::null()).status().unwrap().success()
}

/// A mount with one thread, served by a process of its own: who waits for himself holds the process up.
struct Served<'a> {
    scene: &'a Scene,
    point: PathBuf,
    child: Child,
}

impl<'a> Served<'a> {
    fn new(scene: &'a Scene, run: &str, point: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ckptfs"));
        command.args(["mount", "--threads", "1", "--config-from"]);
        command.args([assets(), scene.path(run), scene.path(point)]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut ready = String::new();
        let mut said = BufReader::new(child.stdout.as_mut().unwrap());
        said.read_line(&mut ready).unwrap();
        assert!(ready.contains("is mounted at"), "{ready}");
        let point = scene.path(point);
        Self {
            scene,
            point,
            child,
        }
    }

    /// That many readers who list the view and look for `name` see one step, and no `name`.
    fn shows_a_step_and_no(&self, name: &'static str) {
        let (sender, answers) = mpsc::channel();
        for _ in 0..16 {
            let (point, sender) = (self.point.clone(), sender.clone());
            thread::spawn(move || {
                let found = point.join(name).exists();
                let files = names(&point.join("step-1"));
                sender.send((names(&point), files.len() > 1, found)).ok();
            });
        }
        for _ in 0..16 {
            let answer = answers.recv_timeout(PATIENCE);
            let (names, has_files, found) = answer.expect("the view waits for itself");
            assert_eq!(names, ["latest", "step-1"]);
            assert!(has_files && !found);
        }
    }
}

impl Drop for Served<'_> {
    /// Nothing but an abort ends a process that waits for itself.
    fn drop(&mut self) {
        let script = r#"
            table=/proc/self/mountinfo; mkdir -p control
            grep " $PWD/.* - fuse.ckptfs " $table | cut -d' ' -f3,5 | while read device point; do
                mount -t fusectl none control
                echo 1 > control/${device#*:}/abort
                umount control; umount -l $point
            done
            for name in al base; do [ ! -e $name ] || umount -l $name; done"#;
        shell(self.scene, script);
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn a_link_of_a_run_into_its_own_view_is_not_followed() {
    need_fuse!();
    need_root!();
    let scene = Scene::of(&["step-1"]);
    fs::create_dir(scene.path("point")).unwrap();
    symlink(scene.path("point/step-1"), scene.step("best")).unwrap();
    Served::new(&scene, "run", "point").shows_a_step_and_no("best");
}

#[test]
fn a_run_in_which_its_own_view_is_mounted_is_shown_without_it() {
    need_fuse!();
    need_root!();
    let scene = Scene::of(&["step-1"]);
    fs::create_dir(scene.step("mnt")).unwrap();
    let mounts =
        "mkdir base al; mount --bind run base; mount --make-shared base; mount --bind base al";
    assert!(shell(&scene, mounts));
    Served::new(&scene, "base", "al/mnt").shows_a_step_and_no("mnt");
}
