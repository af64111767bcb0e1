//! `ckptfs inspect`.

mod report;

use std::fmt::Display;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::view;
use crate::error::Error;
use report::{Report, TensorReport};

/// Say what a mount would show and where every tensor comes from; mounts nothing
#[derive(Debug, Args)]
pub struct Arguments {
    /// The checkpoint: a directory or a file
    source: PathBuf,
    /// As JSON, with all tensors
    #[arg(long)]
    json: bool,
    /// One tensor alone: its source files and operations
    #[arg(long, value_name = "NAME")]
    tensor: Option<String>,
    #[command(flatten)]
    view: view::ViewOptions,
}

pub fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let report = Report::of(&view::open(&arguments.source, &arguments.view)?);
    match arguments.tensor {
        None => print(&report, arguments.json)?,
        Some(name) => print(tensor(&report, &name)?, arguments.json)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn tensor<'a>(report: &'a Report, name: &str) -> Result<&'a TensorReport, Error> {
    let mut tensors = report.tensors.iter();
    tensors.find(|tensor| tensor.name == name).ok_or_else(|| {
        let reason = format!("the view has no tensor {name}; --json lists all");
        Error::Mapping(reason)
    })
}

/// A reader that has seen enough, such as `head`, is no error.
pub fn print(report: &(impl Display + Serialize), json: bool) -> anyhow::Result<()> {
    let text = match json {
        true => format!("{}\n", serde_json::to_string_pretty(report)?),
        false => report.to_string(),
    };
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}
