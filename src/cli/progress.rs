//! A line that shows how far a long command is, on a terminal alone.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::export::{Progress, Step};

const TEMPLATE: &str =
    "{msg} {wide_bar} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta} left";

/// Shows nothing where standard error is no terminal.
pub struct Bar(ProgressBar);

impl Default for Bar {
    fn default() -> Self {
        Self(ProgressBar::with_draw_target(
            Some(0),
            ProgressDrawTarget::stderr(),
        ))
    }
}

impl Bar {
    pub fn start(&self, what: &'static str, total: u64, done: u64) {
        // The template is part of the program.
        if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
            self.0.set_style(style);
        }
        self.0.set_message(what);
        self.0.set_length(total);
        self.0.set_position(done);
        // The rate is that of this run, not of what an earlier one did.
        self.0.reset_eta();
        self.0.enable_steady_tick(Duration::from_millis(200));
    }

    pub fn advance(&self, bytes: u64) {
        self.0.inc(bytes);
    }
}

impl Progress for Bar {
    fn begin(&self, step: Step, total: u64, done: u64) {
        let what = match step {
            Step::Copy => "writing",
            Step::Sum => "summing",
        };
        self.start(what, total, done);
    }

    fn advance(&self, bytes: u64) {
        Self::advance(self, bytes);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
