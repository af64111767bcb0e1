//! A checkpoint in a folder of its own, the program run on it, and what it may not do meanwhile.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::watch::Watch;
use crate::common::hint::says_what_to_do;

/// Most processor time of an answer, more where the program is built for debugging; and most memory.
const TIME: Duration = Duration::from_secs(if cfg!(debug_assertions) { 5 } else { 1 });
const MEMORY: u64 = 200 << 20;

/// Longest that a program may run before it is killed.
const PATIENCE: Duration = Duration::from_secs(120);

/// A family that no table knows, so that names and shapes are free.
const CONFIG: &str = r#"{"model_type": "free"}"#;

/// `source`, the checkpoint; beside it `secret`, which must not be opened, and the place of `canary`, which only code out of
/// a checkpoint would make.
pub struct Scene {
    root: TempDir,
    /// Of the command line, beside those that every scene has.
    options: Vec<OsString>,
}

/// The output and the exit status of the program.
#[derive(Debug)]
pub struct Answer {
    pub code: Option<i32>,
    pub out: String,
    pub complaint: String,
    time: Duration,
    memory: u64,
}

impl Scene {
    pub fn empty() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("source")).unwrap();
        fs::write(root.path().join("secret"), "{}").unwrap();
        let options = Vec::new();
        Self { root, options }
    }

    /// With a config.json of no known family.
    pub fn new() -> Self {
        Self::empty().with("config.json", CONFIG)
    }

    /// A copy of a real checkpoint of `tests/data`.
    pub fn real(name: &str) -> Self {
        let scene = Self::empty();
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
        let from = data.join(name).join("source/.");
        let mut copy = Command::new("cp");
        copy.arg("-r").arg(from).arg(scene.source());
        assert!(copy.status().unwrap().success());
        scene
    }

    pub fn with(self, name: &str, bytes: impl AsRef<[u8]>) -> Self {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), bytes).unwrap();
        self
    }

    /// With a file that is `front` and then zeros up to `size`, which take no place.
    pub fn sparse(self, name: &str, front: &[u8], size: u64) -> Self {
        let mut file = File::create(self.path(name)).unwrap();
        file.write_all(front).unwrap();
        file.set_len(size).unwrap();
        self
    }

    pub fn link(self, name: &str, target: &str) -> Self {
        fs::remove_file(self.path(name)).ok();
        symlink(target, self.path(name)).unwrap();
        self
    }

    pub fn without(self, name: &str) -> Self {
        fs::remove_file(self.path(name)).unwrap();
        self
    }

    /// With the first `old` of a file changed to `new`.
    pub fn edited(self, name: &str, old: &str, new: &str) -> Self {
        let text = fs::read_to_string(self.path(name)).unwrap();
        assert!(text.contains(old), "{text}");
        self.with(name, text.replacen(old, new, 1))
    }

    /// Looked at with an option that names a place in the scene.
    pub fn asked(mut self, option: &str, name: &str) -> Self {
        self.options = vec![option.into(), self.path(name).into()];
        self
    }

    pub fn source(&self) -> PathBuf {
        self.root.path().join("source")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.source().join(name)
    }

    /// `ckptfs inspect --json source`, and the laws that hold whatever comes of it.
    pub fn inspect(&self) -> Answer {
        let watch = Watch::of(&self.root.path().join("secret"));
        let answer = self.run();
        assert!(!watch.saw_anything(), "opened the secret: {answer:?}");
        assert!(!self.root.path().join("canary").exists(), "ran the payload");
        assert!(answer.time < TIME, "took long: {answer:?}");
        assert!(answer.memory < MEMORY, "took much: {answer:?}");
        answer
    }

    fn run(&self) -> Answer {
        let file = |name| File::create(self.root.path().join(name)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_ckptfs"));
        command.current_dir(self.root.path());
        command.args(["inspect", "--json"]).arg(self.source());
        command.args(&self.options);
        command.stdout(file("out")).stderr(file("complaint"));
        let (code, time, memory) = end_of(&mut command.spawn().unwrap());
        let text = |name| {
            String::from_utf8_lossy(&fs::read(self.root.path().join(name)).unwrap()).into_owned()
        };
        let (out, complaint) = (text("out"), text("complaint"));
        Answer {
            code,
            out,
            complaint,
            time,
            memory,
        }
    }
}

/// Exit code, processor time and most memory of a program. wait4 tells of no memory that is the program's alone: what the
/// test itself held when it started the program counts there as well.
fn end_of(child: &mut Child) -> (Option<i32>, Duration, u64) {
    let (mut status, mut usage) = (0, std::mem::MaybeUninit::<libc::rusage>::zeroed());
    let (pid, mut memory, start) = (child.id() as i32, 0, Instant::now());
    loop {
        memory = peak(pid).unwrap_or(memory);
        // SAFETY: wait4 fills what the two pointers name.
        let ended = unsafe { libc::wait4(pid, &mut status, libc::WNOHANG, usage.as_mut_ptr()) };
        if ended == pid {
            break;
        }
        if memory > 2 * MEMORY || start.elapsed() > PATIENCE {
            // A runaway process must not exhaust the machine.
            child.kill().unwrap();
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    // SAFETY: all zeros are an rusage, and wait4 filled it.
    let usage = unsafe { usage.assume_init() };
    let seconds =
        |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000);
    let code = libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status));
    (
        code,
        seconds(usage.ru_utime) + seconds(usage.ru_stime),
        memory,
    )
}

/// Most bytes of memory that the program has had so far. Before it is one of its own, a process has the memory of the test.
fn peak(pid: i32) -> Option<u64> {
    let program = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    if program != Path::new(env!("CARGO_BIN_EXE_ckptfs")) {
        return None;
    }
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

/// Refused in one line that names a file of the checkpoint and holds all `words`.
#[track_caller]
pub fn refused(scene: Scene, words: &[&str]) {
    refused_as(1, scene, words);
}

#[track_caller]
pub fn refused_as(code: i32, scene: Scene, words: &[&str]) {
    let answer = scene.inspect();
    let said = &answer.complaint;
    assert_eq!(answer.code, Some(code), "{answer:?}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.starts_with("ckptfs: "), "{said}");
    assert!(said.contains(scene.source().to_str().unwrap()), "{said}");
    assert!(said.len() < 12_000, "{} bytes", said.len());
    for word in words {
        assert!(said.contains(word), "no {word:?} in: {said}");
    }
    assert!(says_what_to_do(said), "nothing to do in: {said}");
    assert!(answer.out.is_empty());
}

/// Every one of several inputs refused alike.
#[track_caller]
pub fn all_refused(scenes: impl IntoIterator<Item = Scene>, words: &[&str]) {
    for scene in scenes {
        refused(scene, words);
    }
}

/// Shown; the report holds all `words`.
#[track_caller]
pub fn shown(scene: Scene, words: &[&str]) {
    let answer = scene.inspect();
    assert_eq!(answer.code, Some(0), "{answer:?}");
    for word in words {
        assert!(answer.out.contains(word), "no {word:?} in: {}", answer.out);
    }
}
