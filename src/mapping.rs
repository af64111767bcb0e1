//! Names and operations as tables: what a family consists of, what each system calls it, and how one becomes the other.

mod adapter;
mod apply;
mod assemble;
mod backward;
mod classes;
mod config;
mod contradiction;
mod derive;
mod expression;
mod family;
mod index;
mod infer;
mod inverse;
mod lint;
mod listing;
mod operation;
mod parts;
mod pattern;
mod production;
mod promise;
mod table;
mod tables;
mod target;
mod template;
mod units;

pub use adapter::{adapter_systems, check_adapter};
pub use apply::{
    Dropped, MappedTensor, Outcome, apply, coverage, is_whole, known, pass_through, renamed_by,
};
pub use backward::{Written, ZeroRows, backward, one_way};
pub use classes::{Class, Classes, Copied, Lacking, Place, nearest};
pub use config::Config;
pub use derive::Derivation;
pub use family::Family;
pub use infer::infer;
pub use lint::{lint, one_way_rules};
pub use listing::expected;
pub use pattern::Spelling;
pub use promise::{Expected, check, is_tied, shortfall};
pub use table::{Rule, System};
pub use tables::Tables;
pub use target::TargetNames;
pub use units::units;
