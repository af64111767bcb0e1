//! The program under the name `mount.ckptfs`: how mount(8) and /etc/fstab call it.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, bail};

const NAME: &str = "mount.ckptfs";

/// Words of fstab that are mount(8)'s own, or that hold for every view anyway.
const IGNORED: [&str; 32] = [
    "_netdev",
    "async",
    "atime",
    "auto",
    "defaults",
    "dev",
    "diratime",
    "dirsync",
    "exec",
    "group",
    "lazytime",
    "noatime",
    "noauto",
    "nodev",
    "nodiratime",
    "noexec",
    "nofail",
    "nogroup",
    "noowner",
    "norelatime",
    "nosuid",
    "nouser",
    "owner",
    "relatime",
    "ro",
    "rw",
    "strictatime",
    "suid",
    "sync",
    "user",
    "users",
    "nolazytime",
];

/// Whether the program was called as mount's helper.
pub fn is_called() -> bool {
    let program = std::env::args_os().next().unwrap_or_default();
    Path::new(&program).file_name() == Some(OsStr::new(NAME))
}

/// Becomes `ckptfs mount --daemon`, with each option as its flag.
pub fn run() -> anyhow::Result<ExitCode> {
    let Some(arguments) = translated(std::env::args_os().skip(1))? else {
        return Ok(ExitCode::SUCCESS);
    };
    let program = std::env::current_exe().context("the program's own file")?;
    let error = Command::new(program).arg0("ckptfs").args(arguments).exec();
    Err(error.into())
}

/// `SOURCE POINT [-fnsv] [-N NAMESPACE] [-t TYPE] [-o OPTIONS]` as a command line. `None` where only a rehearsal is asked.
fn translated(words: impl Iterator<Item = OsString>) -> anyhow::Result<Option<Vec<OsString>>> {
    let mut words = words;
    let mut arguments: Vec<OsString> = ["mount", "--daemon"].map(OsString::from).into();
    let mut places = Vec::new();
    while let Some(word) = words.next() {
        match word.as_bytes() {
            b"-o" => arguments.extend(flags(&words.next().unwrap_or_default())),
            b"-N" | b"-t" => drop(words.next()),
            [b'-', letters @ ..] if letters.contains(&b'f') => return Ok(None),
            [b'-', _, ..] => {}
            _ => places.push(word),
        }
    }
    if places.len() != 2 {
        bail!("{NAME} SOURCE MOUNTPOINT [-o OPTION,...], as mount(8) calls it");
    }
    arguments.push("--".into());
    arguments.extend(places);
    Ok(Some(arguments))
}

/// `allow_other,dtype=bf16` as `--allow-other` and `--dtype=bf16`.
fn flags(options: &OsStr) -> Vec<OsString> {
    split(options.as_bytes())
        .iter()
        .filter_map(|option| flag(option))
        .collect()
}

fn flag(option: &[u8]) -> Option<OsString> {
    let end = option
        .iter()
        .position(|byte| *byte == b'=')
        .unwrap_or(option.len());
    let (key, value) = option.split_at(end);
    let is_ignored = IGNORED.iter().any(|word| word.as_bytes() == key)
        || [&b"x-"[..], b"X-", b"comment"]
            .iter()
            .any(|prefix| key.starts_with(prefix));
    if key.is_empty() || is_ignored {
        return None;
    }
    let key: Vec<u8> = key
        .iter()
        .map(|byte| if *byte == b'_' { b'-' } else { *byte })
        .collect();
    Some(OsString::from_vec([b"--", &*key, value].concat()))
}

/// The parts between commas. A backslash takes the next byte as it is.
fn split(options: &[u8]) -> Vec<Vec<u8>> {
    let mut parts = vec![Vec::new()];
    let mut bytes = options.iter();
    while let Some(byte) = bytes.next() {
        let plain = match byte {
            b',' => {
                parts.push(Vec::new());
                continue;
            }
            b'\\' => bytes.next().unwrap_or(byte),
            _ => byte,
        };
        parts
            .last_mut()
            .into_iter()
            .for_each(|part| part.push(*plain));
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translate(words: &[&str]) -> Option<Vec<String>> {
        let words = words.iter().map(OsString::from);
        let arguments = translated(words).unwrap()?;
        Some(
            arguments
                .into_iter()
                .map(|word| word.into_string().unwrap())
                .collect(),
        )
    }

    #[test]
    fn options_become_flags_and_words_of_fstab_go() {
        let options = "rw,noauto,x-systemd.automount,allow_other,dtype=bf16,log_file=/a\\,b,user";
        assert_eq!(
            translate(&["/s", "/m", "-n", "-o", options]).unwrap(),
            [
                "mount",
                "--daemon",
                "--allow-other",
                "--dtype=bf16",
                "--log-file=/a,b",
                "--",
                "/s",
                "/m"
            ]
        );
        assert_eq!(
            translate(&["/s", "/m"]).unwrap(),
            ["mount", "--daemon", "--", "/s", "/m"]
        );
        assert_eq!(translate(&["/s", "/m", "-f"]), None);
    }

    #[test]
    fn two_places_are_needed() {
        assert!(translated([OsString::from("/s")].into_iter()).is_err());
    }
}
