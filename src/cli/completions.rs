//! `ckptfs completions`.

use std::process::ExitCode;

use clap::{Args, CommandFactory};
use clap_complete::{Shell, generate};

use super::{CommandLine, output};

/// Print what makes a shell complete the options: ckptfs completions bash
#[derive(Debug, Args)]
pub struct Arguments {
    #[arg(value_enum)]
    shell: Shell,
}

pub fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let mut text = Vec::new();
    generate(
        arguments.shell,
        &mut CommandLine::command(),
        "ckptfs",
        &mut text,
    );
    output::print(&String::from_utf8(text)?)?;
    Ok(ExitCode::SUCCESS)
}
