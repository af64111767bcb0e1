//! Faults of a user's own table that its TOML does not show: tensors that no rule makes, and rules that make none.

use std::collections::BTreeSet;

use super::backward::one_way;
use super::family::Family;
use super::table::System;
use super::tables::Tables;

/// Returns the rules of the user's own systems that `--names` cannot run backwards, one line each.
pub fn one_way_rules(tables: &Tables) -> Vec<String> {
    let own = tables.own_systems();
    let lines = own.flat_map(|system| {
        let rules = one_way(system).into_iter();
        rules.map(|(rule, why)| format!("system {}: {rule} is one-way: {why}", system.name))
    });
    lines.collect()
}

/// Returns the faults of the user's own systems and families, one line each.
pub fn lint(tables: &Tables) -> Vec<String> {
    let mut faults = Vec::new();
    for family in tables.own_families() {
        let mut systems = tables.systems_of(family).peekable();
        if systems.peek().is_none() {
            faults.push(format!(
                "family {}: no system has rules for it",
                family.name
            ));
        }
        faults.extend(systems.flat_map(|system| unmade(system, family)));
    }
    for system in tables.own_systems() {
        faults.extend(unknown_families(tables, system));
        faults.extend(strays(tables, system));
    }
    faults
}

/// The tensors of a family that no rule makes. Systems for all families name none.
fn unmade(system: &System, family: &Family) -> Vec<String> {
    if system.identity || !system.families.contains(&family.name) {
        return Vec::new();
    }
    let made: BTreeSet<String> = system.rules.iter().map(|rule| rule.to.form()).collect();
    let unmade = family
        .tensors
        .iter()
        .filter(|tensor| !made.contains(&tensor.name.form));
    let fault = |form: &str| {
        format!(
            "system {}: no rule makes {form} of family {}",
            system.name, family.name
        )
    };
    unmade.map(|tensor| fault(&tensor.name.form)).collect()
}

fn unknown_families(tables: &Tables, system: &System) -> Vec<String> {
    let is_unknown = |name: &&String| *name != "*" && !tables.knows_family(name);
    let unknown = system.families.iter().filter(is_unknown);
    let fault = |name| format!("system {}: there is no family {name}", system.name);
    unknown.map(fault).collect()
}

/// Rules whose result no family of the system has.
fn strays(tables: &Tables, system: &System) -> Vec<String> {
    let families = tables
        .families()
        .filter(|family| system.families.contains(&family.name));
    let families: Vec<&Family> = families.collect();
    if families.len() != system.families.len() {
        return Vec::new();
    }
    let mut tensors = families.iter().flat_map(|family| &family.tensors);
    let forms: BTreeSet<&str> = tensors.by_ref().map(|tensor| &*tensor.name.form).collect();
    let passes = |form: &str| families.iter().any(|family| family.passes(form));
    let rules = system.rules.iter().map(|rule| rule.to.form());
    let strays = rules.filter(|form| !forms.contains(&**form) && !passes(form));
    let fault = |form| {
        let names = system.families.join(", ");
        format!(
            "system {}: a rule makes {form}, which family {names} has not",
            system.name
        )
    };
    strays.map(fault).collect()
}
