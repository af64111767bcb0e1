//! Terminal sessions in the documents are real: every ```console block is run, and its output compared. Every other command
//! that they name is at least understood.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::need_fuse;

/// Where the documents' reader works.
const READER: &str = "/home/me/ckptfs";

/// A copy of what the documents speak of, and a shell in it.
struct Home(TempDir);

/// A command of a document and the lines that follow it there.
struct Step {
    command: String,
    shown: Vec<String>,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn documents() -> Vec<PathBuf> {
    let docs = fs::read_dir(root().join("docs")).unwrap();
    let docs = docs.map(|entry| entry.unwrap().path());
    let mut all: Vec<PathBuf> = docs
        .filter(|path| path.extension().is_some_and(|end| end == "md"))
        .collect();
    all.push(root().join("README.md"));
    all.sort();
    all
}

/// The steps of all ```console blocks. A line that ends in a backslash goes on in the next.
fn steps(text: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut is_console = false;
    for line in text.lines() {
        match (
            line.strip_prefix("```"),
            line.strip_prefix("$ "),
            steps.last_mut(),
        ) {
            (Some(language), ..) => is_console = language == "console" && !is_console,
            _ if !is_console => {}
            (_, Some(command), _) => steps.push(Step {
                command: command.to_owned(),
                shown: Vec::new(),
            }),
            (_, None, Some(step)) if step.shown.is_empty() && step.command.ends_with('\\') => {
                step.command = format!(
                    "{}{}",
                    step.command.trim_end_matches('\\'),
                    line.trim_start()
                );
            }
            (_, None, Some(step)) => step.shown.push(line.to_owned()),
            (_, None, None) => panic!("output before the first command: {line}"),
        }
    }
    steps
}

impl Home {
    fn new() -> Self {
        let home = Self(tempfile::tempdir().unwrap());
        let copied = Command::new("cp")
            .arg("-r")
            .arg(root().join("examples"))
            .arg(home.0.path())
            .status();
        assert!(copied.unwrap().success());
        home
    }

    /// Runs the steps one after the other in one shell, and returns the output of each.
    fn outputs(&self, steps: &[Step]) -> Vec<String> {
        const MARK: &str = "==== next";
        let lines = steps
            .iter()
            .map(|step| format!("{{ {}\n}} 2>&1\necho '{MARK}'\n", step.command));
        let mut shell = Command::new("bash");
        let program = Path::new(env!("CARGO_BIN_EXE_ckptfs")).parent().unwrap();
        let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
        shell
            .env("PATH", path)
            .env("HOME", self.0.path())
            .env_remove("RUST_LOG");
        shell
            .args(["-c", &lines.collect::<String>()])
            .current_dir(self.0.path());
        let output = shell.output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let text = text.replace(self.0.path().to_str().unwrap(), READER);
        text.split(&format!("{MARK}\n"))
            .map(str::to_owned)
            .collect()
    }
}

impl Drop for Home {
    /// A session that failed may leave a mount in the directory to be removed.
    fn drop(&mut self) {
        let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        let points = table.lines().filter_map(|line| line.split(' ').nth(4));
        for point in points.filter(|point| point.starts_with(self.0.path().to_str().unwrap())) {
            Command::new("umount").args(["-l", point]).status().ok();
        }
    }
}

/// Without what differs from day to day: `in 0.1 s`, `by process 4711`.
fn usual(line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    let differs = |at: usize| {
        let follows = at > 0 && ["in", "process"].contains(&words[at - 1]);
        follows && words[at].parse::<f64>().is_ok()
    };
    let usual = |at: usize| if differs(at) { "some" } else { words[at] };
    (0..words.len()).map(usual).collect::<Vec<_>>().join(" ")
}

fn is_of_others(line: &str) -> bool {
    (line.contains(" is mounted at ") || line.contains(" was mounted at "))
        && !line.contains(READER)
}

fn lines(text: &str) -> Vec<String> {
    let own = text.trim_end().lines().filter(|line| !is_of_others(line));
    own.map(|line| usual(line.trim_end())).collect()
}

#[test]
fn every_terminal_session_of_the_documents_is_real() {
    need_fuse!();
    let mut run = 0;
    for document in documents() {
        let steps = steps(&fs::read_to_string(&document).unwrap());
        let home = Home::new();
        let outputs = home.outputs(&steps);
        for (step, output) in steps.iter().zip(&outputs) {
            let (shown, real) = (lines(&step.shown.join("\n")), lines(output));
            assert!(
                shown == real,
                "{}: $ {}\nshown:\n{}\nreal:\n{}",
                document.display(),
                step.command,
                shown.join("\n"),
                real.join("\n")
            );
            run += 1;
        }
    }
    assert!(run > 10, "{run}");
}

/// The commands of this program that a document names, in code spans and blocks; of each the words up to another command.
fn commands(text: &str) -> Vec<Vec<String>> {
    let is_block = |line: &&str| {
        line.trim_start()
            .trim_start_matches("$ ")
            .starts_with("ckptfs ")
    };
    let spans = text.split('`').skip(1).step_by(2);
    let spans = spans.filter(|span| span.starts_with("ckptfs ") && span.lines().count() == 1);
    let lines = { text.lines() }.filter(|line| is_block(line) && !line.contains('`'));
    let words = |line: &str| {
        let words = line
            .trim_start()
            .trim_start_matches("$ ")
            .split_whitespace();
        let ends = ["&&", "|", ">", "#", "--", ";"];
        let mut is_over = false;
        let own = words.skip(1).take_while(|word| {
            let is_next = is_over || ends.contains(word);
            is_over = word.ends_with(';');
            !is_next
        });
        own.map(|word| word.trim_end_matches(';').to_owned())
            .collect()
    };
    lines.chain(spans).map(words).collect()
}

/// Returns whether a command line is understood: `--help` at its end is answered only after all before it.
fn is_understood(words: &[String]) -> bool {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ckptfs"));
    let output = command.args(words).arg("--help").output().unwrap();
    output.status.success()
}

#[test]
fn every_command_of_the_documents_is_understood() {
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    assert!(!is_understood(&words("mount SOURCE MNT --no-such-option")));
    let mut seen = 0;
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        for words in commands(&text).iter().filter(|words| words[0] != "COMMAND") {
            assert!(
                is_understood(words),
                "{}: ckptfs {}",
                document.display(),
                words.join(" ")
            );
            seen += 1;
        }
    }
    assert!(seen > 80, "{seen}");
}
