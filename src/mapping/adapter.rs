//! The rules of LoRA adapters, which follow from those of the weights that they adapt.

use std::collections::HashMap;

use super::apply::MappedTensor;
use super::config::OTHER;
use super::family::Family;
use super::operation::Operation;
use super::pattern::Names;
use super::promise::Expected;
use super::table::{OneOrMany, Rule, System};
use super::tables::Tables;
use crate::checkpoint::lora::PREFIX;
use crate::error::{Error, Result};

/// The end of an adapted weight's name.
const WEIGHT: &str = ".weight";

/// Names in the place of the weight W: `lora_A` of the shape [rank, columns of W], `lora_B` of [rows of W, rank], a
/// number for each row of W.
const COLUMNS: &str = ".lora_A.weight";
const ROWS: [&str; 2] = [".lora_B.weight", ".lora_magnitude_vector"];

/// The names of a family's adapters in each system, and the operations that take them to PEFT's.
pub fn adapter_systems(tables: &Tables, family: &Family) -> Vec<System> {
    let system = |system: &System| System {
        name: system.name.clone(),
        families: vec![family.name.clone()],
        identity: false,
        rules: adapter_rules(system, family),
        drop: Vec::new(),
        starts: Vec::new(),
        marks: Vec::new(),
        note: None,
        leave: Vec::new(),
        leave_passed: None,
    };
    let systems = tables
        .systems_of(family)
        .filter(|system| system.marks.is_empty());
    systems.map(system).collect()
}

fn adapter_rules(system: &System, family: &Family) -> Vec<Rule> {
    let own = family.tensors.iter().filter(|_| system.identity);
    let itself = own.map(|tensor| Rule {
        from: OneOrMany::One(Names(vec![tensor.name.clone()])),
        to: tensor.template.clone(),
        when: None,
        pre: Vec::new(),
        ops: Vec::new(),
        join: None,
        concat: None,
        parts: Vec::new(),
        then: Vec::new(),
    });
    let renamed = system.rules.iter().filter(|rule| keeps_rows_whole(rule));
    let rules: Vec<Rule> = renamed.cloned().chain(itself).collect();
    rules.iter().flat_map(parts).collect()
}

/// Whether each row of the result is a row of the source: then an adapter can follow. Fused targets would need zeros.
fn keeps_rows_whole(rule: &Rule) -> bool {
    let mut steps = rule.pre.iter().chain(&rule.ops).chain(&rule.then);
    matches!(rule.from, OneOrMany::One(_)) && !steps.any(|step| *step == Operation::Transpose)
}

/// The rules of the parts of an adapter whose weight is that of `rule`.
fn parts(rule: &Rule) -> impl Iterator<Item = Rule> {
    let columns = Rule {
        ops: Vec::new(),
        then: Vec::new(),
        join: None,
        ..rule.clone()
    };
    let rows = ROWS.map(|end| (end, rule.clone()));
    let all = [(COLUMNS, columns)].into_iter().chain(rows);
    all.filter_map(|(end, rule)| part(rule, end))
}

fn part(rule: Rule, end: &str) -> Option<Rule> {
    let OneOrMany::One(Names(patterns)) = &rule.from else {
        return None;
    };
    let patterns = patterns.iter();
    let from: Option<Vec<_>> = patterns
        .map(|pattern| pattern.with_end(WEIGHT, end))
        .collect();
    Some(Rule {
        from: OneOrMany::One(Names(from?)),
        to: rule.to.with_end(WEIGHT, end)?.with_start(PREFIX),
        ..rule
    })
}

/// Refuses an adapter that lacks a half of a module, or does not fit the model that config.json describes.
pub fn check_adapter(expected: &[Expected], tensors: &[MappedTensor]) -> Result<()> {
    let shape = |tensor: &'_ MappedTensor| tensor.tensor.shape().dims().to_vec();
    let mut shapes: HashMap<&str, Vec<u64>> = tensors
        .iter()
        .map(|tensor| (&*tensor.name, shape(tensor)))
        .collect();
    for weight in expected {
        let Some(module) = weight.name.strip_suffix(WEIGHT) else {
            continue;
        };
        let [columns, rows, magnitude] = [COLUMNS, ROWS[0], ROWS[1]]
            .map(|end| shapes.remove(&*format!("{PREFIX}{module}{end}")));
        match (columns.as_deref(), rows.as_deref(), magnitude.as_deref()) {
            (None, None, None) => {}
            (Some([rank, columns]), Some([rows, same]), None) if rank == same => {
                weight.check_shape(&[*rows, *columns])?;
            }
            (Some([rank, columns]), Some([rows, same]), Some([length]))
                if rank == same && rows == length =>
            {
                weight.check_shape(&[*rows, *columns])?;
            }
            found => {
                let reason = "needs lora_A of [rank, columns] and lora_B of [rows, rank]";
                return Err(Error::Mapping(format!(
                    "{module}: an adapter {reason}, found {found:?}; take another save"
                )));
            }
        }
    }
    match shapes.keys().min() {
        None => Ok(()),
        Some(name) => Err(Error::Mapping(format!(
            "{name} adapts no weight of the model that config.json describes; {OTHER}"
        ))),
    }
}
