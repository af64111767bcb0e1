//! `ckptfs verify`.

mod report;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::inspect::print;
use super::progress::Bar;
use super::{options, place, view};
use crate::checkpoint::Opening;
use crate::error::{Error, Result};
use crate::parallel;
use crate::read::Reader;
use crate::run;
use crate::tensor::Tensor;
use crate::verify::{self, Finding, Reading};
use crate::view::View;
use report::Report;

/// Exit status after a fault or a difference.
const NOT_GOOD: u8 = 1;

/// Read everything once and check what a mount cannot check up front, or compare with another directory
#[derive(Debug, Args)]
pub struct Arguments {
    /// The checkpoint: a directory or a file; RUN/latest is the latest save
    #[arg(value_parser = place::source())]
    source: PathBuf,
    /// Compare every tensor with the one of the same name in this Hugging Face directory
    #[arg(long, value_name = "DIR", value_parser = place::source())]
    against: Option<PathBuf>,
    /// Count NaN and infinite values
    #[arg(long, conflicts_with = "against")]
    nan: bool,
    /// As JSON, with all tensors
    #[arg(long)]
    json: bool,
    /// Threads that read [default: number of cores, at most 8]
    #[arg(long, value_name = "N", value_parser = options::count)]
    threads: Option<NonZeroUsize>,
    #[command(flatten)]
    view: view::ViewOptions,
}

impl Arguments {
    pub fn view(&self) -> &view::ViewOptions {
        &self.view
    }
}

pub fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let others = arguments.against.iter();
    { others }.try_for_each(|other| crate::mount::check_source(other))?;
    let view = view::open(&view::single(&arguments.source)?, &arguments.view)?;
    let bar = Bar::default();
    let reading = Reading {
        reader: Reader::default(),
        threads: arguments.threads.unwrap_or_else(parallel::usual_threads),
        counts: arguments.nan,
        progress: &|bytes| bar.advance(bytes),
    };
    bar.start("reading", view.bytes(), 0);
    let report = match &arguments.against {
        Some(other) => against(&view, other, &reading)?,
        None => Report {
            tensors: verify::tensors(&view.tensors, &reading),
            tied: tied(&view, &reading)?,
            files: verify::side_files(&view.files, &reading),
            sums: verify::sources(&view.tensors, &reading),
        },
    };
    drop(bar);
    print(&report, arguments.json)?;
    Ok(match report.is_good() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(NOT_GOOD),
    })
}

/// The tensors that the view leaves out as copies, where the checkpoint has them.
fn tied(view: &View, reading: &Reading<'_>) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for tied in &view.tied {
        let to = view.tensors.iter().find(|tensor| *tensor.name == *tied.to);
        if let (Some(copy), Some(to)) = (&tied.copy, to) {
            let copy = copy.clone().cast(to.tensor.dtype())?;
            findings.push(verify::tied(&tied.name, &copy, to, reading));
        }
    }
    Ok(findings)
}

fn against(view: &View, other: &Path, reading: &Reading<'_>) -> Result<Report> {
    if !crate::source::place::exists(other)? {
        let wanted = "name a Hugging Face folder or a checkpoint as --against";
        return Err(Error::absent(other, wanted));
    }
    let other = run::open(other, &Opening::default()).map_err(|error| match error {
        Error::Mapping(reason) => Error::checkpoint(other, reason),
        error => error,
    })?;
    let adapter = other.adapter_tensors()?;
    let weights = other.tensors.iter().chain(&adapter);
    let theirs: Vec<(&str, &Tensor)> = weights
        .filter_map(|tensor| Some((&*tensor.name, tensor.parts.first()?)))
        .collect();
    Ok(Report {
        tensors: verify::against(&view.tensors, &theirs, reading),
        tied: Vec::new(),
        files: Vec::new(),
        sums: Vec::new(),
    })
}
