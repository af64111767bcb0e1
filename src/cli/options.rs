//! `-o OPTION,...`: what mount(8) and fstab say of a mount, as the flags that it stands for.

use std::ffi::{OsStr, OsString};
use std::num::NonZeroUsize;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

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

/// A number of threads.
pub fn count(text: &str) -> Result<NonZeroUsize, String> {
    text.parse()
        .map_err(|_| "write a number from 1 on, or leave it out".to_owned())
}

/// The same command line with the flags that `options` stand for.
pub fn spelled_out(words: &[OsString], options: &[OsString]) -> Vec<OsString> {
    let end = words.iter().position(|word| word == "--");
    let (before, after) = words.split_at(end.unwrap_or(words.len()));
    let flags: Vec<OsString> = options.iter().flat_map(|some| flags(some)).collect();
    [before, &flags, after].concat()
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

    #[test]
    fn options_become_flags_and_words_of_fstab_go() {
        let options = "rw,noauto,x-systemd.automount,allow_other,dtype=bf16,log_file=/a\\,b,user";
        let flags = ["--allow-other", "--dtype=bf16", "--log-file=/a,b"];
        let line = |words: &[&str]| -> Vec<OsString> { words.iter().map(OsString::from).collect() };
        assert_eq!(
            spelled_out(&line(&["mount", "/s"]), &line(&[options])),
            line(&[&["mount", "/s"], &flags[..]].concat())
        );
        assert_eq!(
            spelled_out(&line(&["mount", "--", "/s"]), &line(&[options])),
            line(&[&["mount"], &flags[..], &["--", "/s"]].concat())
        );
    }
}
