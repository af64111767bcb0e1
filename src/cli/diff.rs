//! `ckptfs diff`.

mod report;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::inspect::print;
use super::progress::Bar;
use super::{options, place, view};
use crate::parallel;
use crate::read::Reader;
use crate::verify::{Reading, compared_bytes, pairs};
use crate::view::Options;
use report::Report;

/// Exit status after a difference.
const DIFFERENT: u8 = 1;

/// Say which tensors two checkpoints differ in: names, types, shapes and values
#[derive(Debug, Args)]
pub struct Arguments {
    /// A checkpoint: a directory or a file; RUN/latest is the latest save
    #[arg(value_name = "A", value_parser = place::source())]
    here: PathBuf,
    /// Another one, which another system may have written
    #[arg(value_name = "B", value_parser = place::source())]
    there: PathBuf,
    /// Compare names, types and shapes alone, and read no weights
    #[arg(long)]
    no_values: bool,
    /// As JSON
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
    let sources = [&arguments.here, &arguments.there];
    let [a, b] = sources.map(|source| view::single(source));
    let (a, b) = (a?, b?);
    let options = Options::from(&arguments.view);
    let (a, b) = (
        view::open_with(&a, &options)?,
        view::open_with(&b, &options)?,
    );
    let bar = Bar::default();
    let reading = Reading {
        reader: Reader::default(),
        threads: arguments.threads.unwrap_or_else(parallel::usual_threads),
        counts: false,
        progress: &|bytes| bar.advance(bytes),
    };
    let reading = (!arguments.no_values).then_some(&reading);
    if reading.is_some() {
        bar.start("comparing", compared_bytes(&a.tensors, &b.tensors), 0);
    }
    let report = Report::of(pairs(&a.tensors, &b.tensors, reading)?, reading.is_some());
    drop(bar);
    print(&report, arguments.json)?;
    Ok(match report.equal {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(DIFFERENT),
    })
}
