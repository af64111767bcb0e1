//! The program itself, run on a small checkpoint.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use safetensors::tensor::{Dtype, TensorView};
use tempfile::TempDir;

/// Longest time that anything here may take, on a machine that has much else to do.
const PATIENCE: Duration = Duration::from_secs(120);

/// A checkpoint, a mount point, and a program to run on them.
pub struct Stage {
    root: TempDir,
}

impl Stage {
    pub fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("point")).unwrap();
        fs::create_dir(root.path().join("source")).unwrap();
        checkpoint(&root.path().join("source"));
        Self { root }
    }

    /// A program that every user may run. Written by another process: what a process has open for writing, its children
    /// hold too, and no test can run it meanwhile.
    pub fn copy_of_program(&self) -> PathBuf {
        let copy = self.other("ckptfs");
        let mut cp = Command::new("cp");
        cp.arg(env!("CARGO_BIN_EXE_ckptfs")).arg(&copy);
        assert!(cp.status().unwrap().success());
        copy
    }

    /// The state folder, where mounts keep their logs.
    pub fn state(&self) -> PathBuf {
        self.other("state")
    }

    pub fn source(&self) -> PathBuf {
        self.root.path().join("source")
    }

    pub fn point(&self) -> PathBuf {
        self.root.path().join("point")
    }

    pub fn weights(&self) -> PathBuf {
        self.point().join("model.safetensors")
    }

    pub fn other(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// `ckptfs` with `arguments`, to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ckptfs"));
        command.current_dir(self.root.path()).args(arguments);
        command.env("XDG_STATE_HOME", self.state());
        command.output().unwrap()
    }

    /// `ckptfs mount source point` in the foreground, once it is ready.
    pub fn mount(&self) -> Foreground {
        self.mount_by(Command::new(env!("CARGO_BIN_EXE_ckptfs")))
    }

    pub fn mount_by(&self, command: Command) -> Foreground {
        self.mount_with(command, &[])
    }

    pub fn mount_with(&self, mut command: Command, flags: &[&str]) -> Foreground {
        command.current_dir(self.root.path());
        command.args(["mount", "source", "point"]).args(flags);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.env("XDG_STATE_HOME", self.state());
        // SAFETY: between fork and exec prctl may be called; it takes numbers alone.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            })
        };
        let mut child = command.spawn().unwrap();
        let mut ready = String::new();
        let stdout = child.stdout.as_mut().unwrap();
        BufReader::new(stdout).read_line(&mut ready).unwrap();
        assert!(ready.contains("is mounted at"), "{ready:?}");
        Foreground { child }
    }

    pub fn is_mounted(&self) -> bool {
        let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        table.contains(self.point().to_str().unwrap())
    }

    /// A reader that keeps a file of the mount open until it gets a line or the end of its input, and then counts the bytes that
    /// it can read.
    pub fn reader(&self) -> Child {
        let script = format!(
            "exec 5<{}; echo open; read line; cat <&5 | wc -c",
            self.weights().display()
        );
        let mut child = Command::new("bash")
            .args(["-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let mut line = [0; 5];
        child
            .stdout
            .as_mut()
            .unwrap()
            .read_exact(&mut line)
            .unwrap();
        child
    }
}

impl Drop for Stage {
    /// A test that failed may leave mounts in the directory to be removed.
    fn drop(&mut self) {
        let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        let points = table.lines().filter_map(|line| line.split(' ').nth(4));
        for point in points.filter(|point| point.starts_with(self.root.path().to_str().unwrap())) {
            Command::new("umount").args(["-l", point]).status().ok();
        }
    }
}

/// A program in the foreground, killed with the test.
pub struct Foreground {
    child: Child,
}

impl Foreground {
    pub fn signal(&self, signal: i32) {
        // SAFETY: kill takes numbers alone; the child has not been waited for, so that its id is its own.
        unsafe { libc::kill(self.child.id() as i32, signal) };
    }

    /// Whether no thread runs any more after SIGSTOP.
    #[allow(dead_code, reason = "one test alone asks")]
    pub fn is_stopped(&self) -> bool {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let mut states = threads.map(|thread| {
            let stat = std::fs::read_to_string(thread.unwrap().path().join("stat")).unwrap();
            stat.rsplit(") ").next().map(|rest| rest.starts_with('T'))
        });
        states.all(|is_stopped| is_stopped == Some(true))
    }

    #[allow(dead_code, reason = "few tests ask")]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Exit status and all that was written to standard error.
    pub fn wait(mut self) -> (Option<i32>, String) {
        let status = within(|| self.child.try_wait().unwrap());
        let mut complaint = String::new();
        let stderr = self.child.stderr.as_mut().unwrap();
        stderr.read_to_string(&mut complaint).unwrap();
        (status.code(), complaint)
    }
}

impl Drop for Foreground {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Lets `user` mount what lies on the stage: opens /dev/fuse to all, in the mount namespace of this test alone.
pub fn let_mount(user: u32, stage: &Stage) {
    let weights = stage.source().join("model.safetensors");
    for (path, mode) in [(stage.other(""), 0o755), (weights, 0o644)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    chown(stage.point(), Some(user), Some(user)).unwrap();
    let device = stage.other("fuse");
    let mut make = Command::new("mknod");
    make.args(["-m", "666"])
        .arg(&device)
        .args(["c", "10", "229"]);
    assert!(make.status().unwrap().success());
    let mut bind = Command::new("mount");
    bind.arg("--bind").arg(device).arg("/dev/fuse");
    assert!(bind.status().unwrap().success());
}

/// Gives this thread and its children a mount namespace of their own, where it is root, so that the mounts of a test end
/// with it even when it is killed.
pub fn keep_mounts_apart() {
    if !is_root() {
        return;
    }
    let (none, root) = (std::ptr::null(), c"/".as_ptr());
    // SAFETY: unshare takes numbers alone; mount reads one path, which ends in a zero byte.
    let failed = unsafe {
        libc::unshare(libc::CLONE_NEWNS)
            | libc::mount(
                none,
                root,
                none,
                libc::MS_REC | libc::MS_PRIVATE,
                none.cast(),
            )
    };
    assert_eq!(failed, 0, "{}", std::io::Error::last_os_error());
}

pub fn is_root() -> bool {
    // SAFETY: geteuid takes nothing and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// Repeats `ask` until it answers.
pub fn within<T>(mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        match ask() {
            Some(answer) => return answer,
            None => assert!(start.elapsed() < PATIENCE, "nothing happened"),
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The one line of an error.
pub fn complaint(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.starts_with("ckptfs: "), "{text}");
    text
}

/// A Llama of one layer, as `save_pretrained` writes it. One block of noise gives all weights their bytes.
fn checkpoint(folder: &Path) {
    let (hidden, vocabulary, layer) = (512, 4096, "model.layers.0");
    let square = || vec![hidden, hidden];
    let tensors = [
        (
            "model.embed_tokens.weight".to_owned(),
            vec![vocabulary, hidden],
        ),
        ("lm_head.weight".to_owned(), vec![vocabulary, hidden]),
        ("model.norm.weight".to_owned(), vec![hidden]),
        (format!("{layer}.input_layernorm.weight"), vec![hidden]),
        (
            format!("{layer}.post_attention_layernorm.weight"),
            vec![hidden],
        ),
        (format!("{layer}.self_attn.q_proj.weight"), square()),
        (format!("{layer}.self_attn.k_proj.weight"), square()),
        (format!("{layer}.self_attn.v_proj.weight"), square()),
        (format!("{layer}.self_attn.o_proj.weight"), square()),
        (format!("{layer}.mlp.gate_proj.weight"), square()),
        (format!("{layer}.mlp.up_proj.weight"), square()),
        (format!("{layer}.mlp.down_proj.weight"), square()),
    ];
    let bytes = super::mounts::noise(2 * vocabulary * hidden, 1);
    let views = tensors.map(|(name, shape)| {
        let size = 2 * shape.iter().product::<usize>();
        (
            name,
            TensorView::new(Dtype::BF16, shape, &bytes[..size]).unwrap(),
        )
    });
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let file = folder.join("model.safetensors");
    safetensors::serialize_to_file(views, Some(metadata), &file).unwrap();
    fs::write(folder.join("config.json"), CONFIG).unwrap();
}

const CONFIG: &str = r#"{
  "architectures": ["LlamaForCausalLM"],
  "model_type": "llama",
  "hidden_size": 512,
  "intermediate_size": 512,
  "vocab_size": 4096,
  "num_hidden_layers": 1,
  "num_attention_heads": 8,
  "num_key_value_heads": 8,
  "tie_word_embeddings": false,
  "dtype": "bfloat16"
}
"#;
