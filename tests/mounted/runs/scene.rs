//! A run of real checkpoints, and a mount of it.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use ckptfs::error::Result;
use ckptfs::mount::{Mounted, Options, mount_run};
use ckptfs::output::VirtualFile;
use ckptfs::run::Run;
use ckptfs::view::{self, View};
use tempfile::TempDir;

pub fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A step that torchtitan wrote, and the folder that has its config.json.
pub fn example() -> PathBuf {
    project("examples/torchtitan-llama3/checkpoint/step-10")
}

pub fn assets() -> PathBuf {
    project("examples/torchtitan-llama3/hf_assets")
}

/// Opens a checkpoint as the command line does. Those of torchtitan have no config.json beside them.
pub fn open(path: &Path) -> Result<Vec<VirtualFile>> {
    let options = view::Options {
        config_from: path.join(".metadata").exists().then(assets),
        ..view::Options::default()
    };
    Ok(View::open(path, &options)?.files)
}

pub struct Scene {
    root: TempDir,
}

impl Scene {
    pub fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("run")).unwrap();
        Self { root }
    }

    /// A run of steps of torchtitan.
    pub fn of(steps: &[&str]) -> Self {
        let scene = Self::new();
        steps.iter().for_each(|step| scene.save(step));
        scene
    }

    pub fn run(&self) -> PathBuf {
        self.path("run")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub fn step(&self, name: &str) -> PathBuf {
        self.run().join(name)
    }

    pub fn save(&self, name: &str) {
        self.copy(&example(), name);
    }

    /// All but the file that torch writes last.
    pub fn begin(&self, name: &str) {
        self.save(name);
        fs::rename(
            self.step(name).join(".metadata"),
            self.step(name).join(".metadata.tmp"),
        )
        .unwrap();
    }

    pub fn end(&self, name: &str) {
        fs::rename(
            self.step(name).join(".metadata.tmp"),
            self.step(name).join(".metadata"),
        )
        .unwrap();
    }

    pub fn copy(&self, from: &Path, name: &str) {
        fs::create_dir_all(self.step(name)).unwrap();
        let mut copy = Command::new("cp");
        copy.arg("-r").arg(from.join(".")).arg(self.step(name));
        assert!(copy.status().unwrap().success());
    }

    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.step(name), text).unwrap();
    }

    /// Makes all files of a folder, and itself, as old as `age`.
    pub fn age(&self, name: &str, age: Duration) {
        let then = SystemTime::now() - age;
        let entries = fs::read_dir(self.step(name)).unwrap();
        let files = entries.map(|entry| entry.unwrap().path());
        for path in files.chain([self.step(name)]) {
            File::open(path).unwrap().set_modified(then).unwrap();
        }
    }

    pub fn mount(&self) -> Shown {
        self.mount_with(open)
    }

    pub fn mount_with(
        &self,
        open: impl Fn(&Path) -> Result<Vec<VirtualFile>> + Send + Sync + 'static,
    ) -> Shown {
        let run = Run::find(&self.run()).unwrap();
        let run = run.or_else(|| Run::awaited(&self.run()).unwrap()).unwrap();
        let opened = Arc::new(AtomicUsize::new(0));
        let count = opened.clone();
        let counted = move |path: &Path| {
            count.fetch_add(1, Ordering::Relaxed);
            open(path)
        };
        let point = tempfile::tempdir().unwrap();
        let mut options = Options::new(self.run());
        options.threads = std::num::NonZeroUsize::new(2);
        let mounted = mount_run(run, Box::new(counted), point.path(), &options).unwrap();
        Shown {
            mounted: Some(mounted),
            point,
            opened,
        }
    }

    /// `ckptfs` with `arguments` beside the run.
    pub fn command(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ckptfs"));
        command.current_dir(self.root.path()).args(arguments);
        command.output().unwrap()
    }
}

/// A mounted run.
pub struct Shown {
    mounted: Option<Mounted>,
    point: TempDir,
    opened: Arc<AtomicUsize>,
}

impl Shown {
    pub fn path(&self, name: &str) -> PathBuf {
        self.point.path().join(name)
    }

    pub fn names(&self) -> Vec<String> {
        names(self.point.path())
    }

    pub fn latest(&self) -> Option<String> {
        let target = fs::read_link(self.path("latest")).ok()?;
        Some(target.into_os_string().into_string().unwrap())
    }

    pub fn weights(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name).join("model.safetensors")).unwrap()
    }

    pub fn error(&self, name: &str) -> String {
        assert_eq!(names(&self.path(name)), ["ERROR.txt"]);
        fs::read_to_string(self.path(name).join("ERROR.txt")).unwrap()
    }

    /// Returns how many checkpoints were opened so far.
    pub fn opened(&self) -> usize {
        self.opened.load(Ordering::Relaxed)
    }

    pub fn inode(&self, name: &str) -> u64 {
        fs::metadata(self.path(name)).unwrap().ino()
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        drop(self.mounted.take());
    }
}

/// Lists a directory, sorted.
pub fn names(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
