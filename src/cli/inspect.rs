//! `ckptfs inspect`.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::view;
use crate::fs::one_line;

/// Say what a mount would show and where every tensor comes from; mounts nothing
#[derive(Debug, Args)]
pub struct Arguments {
    /// The checkpoint: a directory or a file
    source: PathBuf,
    /// As JSON
    #[arg(long)]
    json: bool,
    /// One tensor alone: its source files and operations
    #[arg(long, value_name = "NAME")]
    tensor: Option<String>,
    #[command(flatten)]
    view: view::ViewOptions,
}

pub fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let opened = view::open(&arguments.source, &arguments.view)?;
    let mut text = String::new();
    for file in &opened.files {
        text.push_str(&format!("{:>15}  {}\n", file.size(), one_line(file.path())));
    }
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// A reader that has seen enough, such as `head`, is no error.
fn print(text: &str) -> io::Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}
