//! The mount as its users meet it: every test works on a real one.

mod command;
mod failing;
mod life;
mod listing;
mod others;
mod overlay;
mod passthrough;
mod posix;
mod reading;
mod writing;
