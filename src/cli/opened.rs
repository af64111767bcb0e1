//! A view by the words of a command line, for programs that embed the library: they get the options, checks and messages of the
//! commands.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Parser;

use super::inspect::Report;
use super::variables;
use super::view::{self, ViewOptions};
use crate::text::plain_json;
use crate::view::View;

#[derive(Debug, Parser)]
#[command(name = "ckptfs", no_binary_name = true, disable_help_flag = true)]
struct Words {
    source: PathBuf,
    #[command(flatten)]
    view: ViewOptions,
}

/// A checkpoint and what a mount of it would show.
#[derive(Debug)]
pub struct Opened {
    /// The checkpoint itself, where the words name a run.
    pub source: PathBuf,
    pub view: View,
}

impl Opened {
    /// Opens what `words` name: a source, and options as `ckptfs inspect` takes them.
    ///
    /// # Errors
    /// Wrong words and whatever is not understood, in one line.
    pub fn from_words(words: impl IntoIterator<Item = OsString>) -> anyhow::Result<Self> {
        let words: Vec<OsString> = words.into_iter().collect();
        let parsed = variables::parse::<Words>(&words);
        let Words { source, view } = parsed.map_err(|error| {
            let text = error.to_string();
            // Hints for a command line follow after an empty line.
            let lines = text.lines().take_while(|line| !line.is_empty());
            let said: Vec<&str> = lines.map(str::trim).collect();
            anyhow::anyhow!("{}", said.join(" ").trim_start_matches("error: "))
        })?;
        let source = view::single(&source)?;
        let view = view::open(&source, &view)?;
        Ok(Self { source, view })
    }

    /// The report of `ckptfs inspect --json`.
    ///
    /// # Errors
    /// When metadata that is read late cannot be read.
    pub fn report(&self) -> anyhow::Result<String> {
        let json = serde_json::to_string(&Report::of(&self.view)?)?;
        Ok(plain_json(&json))
    }
}
