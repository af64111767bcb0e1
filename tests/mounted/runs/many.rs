//! A run of many steps, and how long it takes to mount and list it: CKPTFS_RUN_STEPS sets how many, and the test prints.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::scene::*;
use crate::need_fuse;

/// A run whose steps share their files, each an hour old.
fn run_of(steps: usize) -> Scene {
    let scene = Scene::of(&["step-0"]);
    let names = names(&scene.step("step-0"));
    for number in 1..steps {
        let step = scene.step(&format!("step-{number}"));
        fs::create_dir(&step).unwrap();
        for name in &names {
            let (from, to) = (scene.step("step-0").join(name), step.join(name));
            fs::hard_link(&from, &to).unwrap();
        }
    }
    let ages = (0..steps).map(|number| format!("step-{number}"));
    ages.for_each(|step| scene.age(&step, Duration::from_secs(3600)));
    scene
}

fn timed<T>(what: &str, act: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let done = act();
    println!("{what}: {:.3} s", start.elapsed().as_secs_f64());
    done
}

#[test]
fn a_run_of_many_steps_is_mounted_and_listed_whole() {
    need_fuse!();
    let steps = std::env::var("CKPTFS_RUN_STEPS").map_or(200, |text| text.parse().unwrap());
    let scene = run_of(steps);
    let point = scene.path("point");
    fs::create_dir(&point).unwrap();
    let mut mount = Command::new(env!("CARGO_BIN_EXE_ckptfs"));
    mount
        .args(["mount", "run", "point", "--config-from"])
        .arg(assets());
    mount.current_dir(scene.path("")).stdout(Stdio::piped());
    let mut mounted = timed(&format!("{steps} steps mounted"), || {
        let mut mounted = mount.spawn().unwrap();
        let mut ready = String::new();
        let stdout = mounted.stdout.as_mut().unwrap();
        BufReader::new(stdout).read_line(&mut ready).unwrap();
        assert!(
            ready.contains(&format!("the latest save is step-{}", steps - 1)),
            "{ready}"
        );
        mounted
    });
    let first = timed("listed for the first time", || names(&point));
    assert_eq!(first.len(), steps + 1);
    std::thread::sleep(Duration::from_millis(1100));
    assert!(timed("listed again", || names(&point)) == first);
    assert_eq!(
        timed("looked into", || names(&point.join("latest"))).len(),
        5
    );
    // SAFETY: kill takes numbers alone; the child has not been waited for.
    unsafe { libc::kill(mounted.id() as i32, libc::SIGTERM) };
    assert!(mounted.wait().unwrap().success());
}
