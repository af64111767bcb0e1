//! `ckptfs inspect`.

mod named;
mod page;
mod pattern;
mod report;
mod run;
mod text;
mod tree;

use std::fmt::Display;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::{output, place, view};
use crate::destination::create_new;
use crate::error::Error;
use crate::run::Run;
use crate::text::{plain_json, quoted};
use crate::view::View;
use named::Details;
pub use report::Report;
use run::RunReport;

/// Say what a mount would show and where every tensor comes from, or list the checkpoints of a run; mounts nothing
#[derive(Debug, Args)]
pub struct Arguments {
    /// The checkpoint: a directory or a file, a run, or RUN/latest
    #[arg(value_parser = place::source())]
    source: PathBuf,
    /// As JSON, with all tensors
    #[arg(long)]
    json: bool,
    /// One tensor alone, by its name in the view or in the checkpoint, or all of a pattern such as "*.q_proj.weight": operations, and the
    /// bytes that they are made of
    #[arg(long, value_name = "NAME")]
    tensor: Option<String>,
    /// Write a page with a map of the model to a new file, for any browser
    #[arg(long, value_name = "FILE", conflicts_with_all = ["json", "tensor"])]
    html: Option<PathBuf>,
    #[command(flatten)]
    view: view::ViewOptions,
}

impl Arguments {
    pub fn view(&self) -> &view::ViewOptions {
        &self.view
    }
}

pub fn run(mut arguments: Arguments) -> anyhow::Result<ExitCode> {
    let is_whole = arguments.tensor.is_none() && arguments.html.is_none();
    arguments.source = match is_whole {
        true => view::pinned(&arguments.source)?,
        false => view::single(&arguments.source)?,
    };
    if is_whole && let Some(run) = Run::find(&arguments.source)? {
        print(&RunReport::of(&run)?, arguments.json)?;
        return Ok(ExitCode::SUCCESS);
    }
    { arguments.html.iter() }.try_for_each(|file| crate::mount::check_target(file))?;
    let view = view::open(&arguments.source, &arguments.view)?;
    match (&arguments.tensor, &arguments.html) {
        (Some(name), _) => print(
            &Details::of(&arguments.source, &view, name)?,
            arguments.json,
        )?,
        (None, Some(file)) => write_page(file, &arguments.source, &view)?,
        (None, None) => print(&Report::of(&view)?, arguments.json)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn write_page(file: &Path, source: &Path, view: &View) -> anyhow::Result<()> {
    let source = source.display().to_string();
    let page = page::page(&source, &command_line(), &Report::of(view)?)?;
    let write = || create_new(file)?.write_all(page.as_bytes());
    write().map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            let reason =
                "exists already; nothing is overwritten: name a file that is not there yet";
            Error::target(file, reason)
        }
        _ => Error::unwritable(file, &error),
    })?;
    Ok(output::print(&format!("{}\n", file.display()))?)
}

/// The command line of this process, as a shell reads it.
fn command_line() -> String {
    let words = std::env::args_os().skip(1).map(|word| {
        let is_option = word.as_encoded_bytes().starts_with(b"-");
        match is_option {
            true => word.to_string_lossy().into_owned(),
            false => quoted(Path::new(&word)),
        }
    });
    let words: Vec<String> = words.collect();
    format!("ckptfs {}", words.join(" "))
}

pub fn print(report: &(impl Display + Serialize), json: bool) -> anyhow::Result<()> {
    let text = match json {
        true => format!("{}\n", plain_json(&serde_json::to_string_pretty(report)?)),
        false => report.to_string(),
    };
    Ok(output::print(&text)?)
}
