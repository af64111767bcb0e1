//! The program under the name `mount.ckptfs`: how mount(8) and /etc/fstab call it.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, bail};

const NAME: &str = "mount.ckptfs";

/// Whether the program was called as mount's helper.
pub fn is_called() -> bool {
    let program = std::env::args_os().next().unwrap_or_default();
    Path::new(&program).file_name() == Some(OsStr::new(NAME))
}

/// Becomes `ckptfs mount --daemon`.
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
            b"-o" => arguments.extend(["-o".into(), words.next().unwrap_or_default()]),
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
    fn the_line_of_mount_is_that_of_the_command() {
        assert_eq!(
            translate(&["/s", "/m", "-n", "-o", "rw,dtype=bf16"]).unwrap(),
            ["mount", "--daemon", "-o", "rw,dtype=bf16", "--", "/s", "/m"]
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
