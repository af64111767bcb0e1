//! `ckptfs serve`: the bytes of a mount over HTTP, for clients on this machine.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use super::*;

/// A server in the foreground.
struct Server {
    process: Child,
    address: String,
}

impl Server {
    fn of(stage: &Stage, source: &str, flags: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ckptfs"));
        command.current_dir(stage.other("."));
        command
            .args(["serve", source, "--listen", "127.0.0.1:0"])
            .args(flags);
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let lines: Vec<String> = lines.take(3).map(Result::unwrap).collect();
        let address = lines[1].strip_prefix("HF_ENDPOINT=http://").unwrap();
        assert_eq!(lines[2], format!("AWS_ENDPOINT_URL=http://{address}"));
        let address = address.to_owned();
        Self { process, address }
    }

    fn ask(&self, request: &str) -> (String, Vec<u8>) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let request = request.replace("HOST", &self.address);
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let end = answer
            .windows(4)
            .position(|part| part == b"\r\n\r\n")
            .unwrap();
        let body = answer.split_off(end + 4);
        (String::from_utf8(answer).unwrap().to_lowercase(), body)
    }

    fn get(&self, path: &str, headers: &str) -> (String, Vec<u8>) {
        self.ask(&format!(
            "GET {path} HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n{headers}\r\n"
        ))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

const WEIGHTS: &str = "/any/name/resolve/main/model.safetensors";

#[test]
fn files_are_served_whole_and_in_ranges() {
    let stage = Stage::new();
    let expected = expected(&stage);
    let server = Server::of(&stage, "source", &[]);
    for path in [WEIGHTS, "/view/model.safetensors"] {
        let (head, body) = server.get(path, "");
        assert!(head.starts_with("http/1.1 200"), "{head}");
        assert_eq!(body, expected);
        let (head, body) = server.get(path, "Range: bytes=8-99\r\n");
        assert!(head.starts_with("http/1.1 206"), "{head}");
        let range = format!("content-range: bytes 8-99/{}", expected.len());
        assert!(head.contains(&range), "{head}");
        assert_eq!(body, expected[8..100]);
        let (head, _) = server.get(path, "Range: bytes=99999999-\r\n");
        assert!(head.starts_with("http/1.1 416"), "{head}");
        let (head, _) = server.get(path, "If-Match: \"other\"\r\n");
        assert!(head.starts_with("http/1.1 412"), "{head}");
        let (head, body) = server.ask(&format!(
            "HEAD {path} HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n"
        ));
        assert!(
            head.contains(&format!("content-length: {}", expected.len())),
            "{head}"
        );
        assert!(head.contains("etag: \"") && body.is_empty(), "{head}");
    }
    let (head, _) = server.get("/any/name/resolve/main/none", "");
    assert!(head.contains("x-error-code: entrynotfound"), "{head}");
    let (head, _) = server.get("/any/name/resolve/none/config.json", "");
    assert!(head.contains("x-error-code: revisionnotfound"), "{head}");
}

#[test]
fn a_served_view_is_mounted_by_the_hubs_and_the_buckets_address() {
    need_fuse!();
    let stage = Stage::new();
    let expected = expected(&stage);
    let server = Server::of(&stage, "source", &[]);
    for source in ["hf://any/name@main", "s3://view"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ckptfs"));
        command.current_dir(stage.other("."));
        command.env("HF_ENDPOINT", format!("http://{}", server.address));
        command.env("AWS_ENDPOINT_URL", format!("http://{}", server.address));
        command
            .env("AWS_ACCESS_KEY_ID", "k")
            .env("AWS_SECRET_ACCESS_KEY", "s");
        command
            .env("HF_HOME", stage.other("cache"))
            .env("HOME", stage.other("."));
        command.args(["mount", source, "point", "--daemon"]);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let weights = fs::read(stage.weights()).unwrap();
        stage.run(&["umount", "point"]);
        assert_eq!(weights, expected, "{source}");
    }
}

#[test]
fn saves_of_a_run_are_revisions_and_folders() {
    let stage = Stage::new();
    let expected = expected(&stage);
    for step in ["step-1", "step-2"] {
        copy(&stage.source(), &stage.other("run").join(step));
    }
    let server = Server::of(&stage, "run", &[]);
    // Files without a marker count as complete when they have rested.
    within(|| {
        server
            .get("/a/b/resolve/step-1/config.json", "")
            .0
            .starts_with("http/1.1 200")
            .then_some(())
    });
    for path in [
        "/a/b/resolve/step-1/model.safetensors",
        "/a/b/resolve/main/model.safetensors",
        "/view/step-2/model.safetensors",
    ] {
        let (head, body) = server.get(path, "");
        assert!(head.starts_with("http/1.1 200"), "{path}: {head}");
        assert_eq!(body, expected, "{path}");
    }
    let (_, body) = server.get("/view?list-type=2&delimiter=%2F", "");
    let listed = String::from_utf8(body).unwrap();
    assert!(listed.contains("<Prefix>step-1/</Prefix>"), "{listed}");
    assert!(!listed.contains("model.safetensors"), "{listed}");
}

#[test]
fn only_this_machine_is_answered_and_others_with_the_token() {
    let stage = Stage::new();
    let server = Server::of(&stage, "source", &["--token", "t0k", "--repo", "a/b"]);
    let config = "/a/b/resolve/main/config.json";
    let (head, _) = server.get(config, "");
    assert!(head.starts_with("http/1.1 401"), "{head}");
    let own = "Authorization: Bearer t0k\r\n";
    assert!(server.get(config, own).0.starts_with("http/1.1 200"));
    let (head, _) = server.get("/c/d/resolve/main/config.json", own);
    assert!(head.contains("x-error-code: reponotfound"), "{head}");
    let (head, _) = server.ask(&format!(
        "GET {config} HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n{own}\r\n"
    ));
    assert!(head.starts_with("http/1.1 421"), "{head}");
    let output = stage.run(&["serve", "source", "--listen", "0.0.0.0:0"]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(complaint(&output).contains("set a --token"));
}

#[test]
fn a_server_in_the_background_is_listed_and_ends_on_a_signal() {
    let stage = Stage::new();
    let output = stage.run(&["serve", "source", "--listen", "127.0.0.1:0", "--daemon"]);
    let ready = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success() && ready.contains("HF_ENDPOINT="),
        "{ready}"
    );
    let process = ready
        .split("kill ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next())
        .unwrap();
    let listed = || String::from_utf8(stage.run(&["status"]).stdout).unwrap();
    let line = format!("by process {process}; kill {process} ends it");
    assert!(listed().contains(&line));
    let process: i32 = process.parse().unwrap();
    // SAFETY: the call takes numbers alone.
    assert_eq!(unsafe { libc::kill(process, libc::SIGTERM) }, 0);
    within(|| (!listed().contains(&line)).then_some(()));
}
