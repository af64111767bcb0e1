//! A mount in a process of its own, and what that process uses.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

/// A build of the program, and the mechanisms that it is to do without.
#[derive(Debug, Clone)]
pub struct Program {
    pub binary: PathBuf,
    pub without: String,
}

impl Default for Program {
    fn default() -> Self {
        Self {
            binary: env!("CARGO_BIN_EXE_ckptfs").into(),
            without: String::new(),
        }
    }
}

pub struct Mounted {
    daemon: Child,
    pub point: PathBuf,
}

impl Mounted {
    pub fn start(program: &Program, source: &Path, flags: &[&str]) -> Self {
        let point = source.with_extension("mnt");
        fs::create_dir_all(&point).expect("a mount point");
        let mut command = Command::new(&program.binary);
        command.env("CKPTFS_WITHOUT", &program.without);
        command.arg("mount").args(flags).args([source, &point]);
        // It warns of made-up models.
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut daemon = command.spawn().expect("the daemon");
        let mut line = String::new();
        let output = daemon.stdout.take().expect("its output");
        BufReader::new(output).read_line(&mut line).expect("a line");
        assert!(line.contains("mounted"), "{source:?} could not be mounted");
        Self { daemon, point }
    }

    /// Seconds of processor time so far.
    pub fn cpu(&self) -> f64 {
        cpu(&self.proc("stat"))
    }

    /// Bytes that it read from storage so far.
    pub fn read_bytes(&self) -> u64 {
        field(&self.proc("io"), "read_bytes:")
    }

    /// Anonymous memory, in bytes.
    pub fn anonymous(&self) -> u64 {
        field(&self.proc("status"), "RssAnon:") << 10
    }

    /// The same once what opening took was given back, just after the mount answers.
    pub fn settled_anonymous(&self) -> u64 {
        thread::sleep(Duration::from_millis(300));
        self.anonymous()
    }

    fn proc(&self, name: &str) -> String {
        let path = format!("/proc/{}/{name}", self.daemon.id());
        fs::read_to_string(path).expect("/proc of the daemon")
    }
}

/// Seconds of processor time that `/proc/PID/stat` tells.
pub fn cpu(stat: &str) -> f64 {
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split(' ').collect();
    let ticks = |i: usize| fields[i].parse::<f64>().expect("ticks");
    (ticks(12) + ticks(13)) / 100.0
}

pub fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.expect("a field of /proc")
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ckptfs"));
        command.args(["umount", "--lazy"]).arg(&self.point);
        command.status().ok();
        self.daemon.wait().ok();
    }
}
