//! Faults of a user's own table that its TOML does not show: tensors that no rule makes, and rules that make none.

use std::collections::BTreeSet;
use std::ptr;

use super::apply::holds;
use super::backward::one_way;
use super::config::Config;
use super::family::Family;
use super::index::{Found, Index};
use super::listing::expected;
use super::promise::Expected;
use super::table::{Rule, System};
use super::tables::Tables;
use crate::error::Result;

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

impl Tables {
    /// Returns the systems of the user's own file that have rules for a family.
    pub fn own_systems_of<'t>(&'t self, family: &'t Family) -> impl Iterator<Item = &'t System> {
        let is_meant = |name: &String| *name == family.name || name == "*";
        self.own_systems()
            .filter(move |system| system.families.iter().any(is_meant))
    }

    /// Returns the faults of the user's own file that show for the model of a config.json, one line each.
    pub fn lint_model(&self, family: &Family, config: &Config) -> Vec<String> {
        let name = &family.name;
        if !self.speaks_of(family) && self.own_systems_of(family).next().is_none() {
            return vec![format!(
                "has nothing for family {name}, neither tensors nor rules; add a [[system]] with families = [\"{name}\"]"
            )];
        }
        // `lint` reports them for a family of the user's own, whatever its config.json says.
        if self.own_families().any(|own| ptr::eq(own, family)) {
            return Vec::new();
        }
        let systems = self
            .own_systems()
            .filter(|system| !system.identity && system.families.contains(name));
        systems
            .flat_map(|system| unmade_of_model(system, family, config))
            .collect()
    }
}

impl System {
    /// Returns those of `names` that no rule of the system reads under this config.json.
    ///
    /// # Errors
    /// When the condition of a rule asks for a number that config.json lacks.
    pub fn without_rule<'n>(
        &self,
        family: &Family,
        config: &Config,
        names: &'n [String],
    ) -> Result<Vec<&'n str>> {
        let index = Index::new(self, family);
        let mut unread = Vec::new();
        for name in names {
            let is_read = match index.find(name) {
                Found::Nothing => false,
                Found::Itself | Found::Dropped(_) => true,
                Found::Rules(claims) => {
                    let rules = claims.iter().map(|(number, ..)| &self.rules[*number]);
                    !holding(rules, family, config)?.is_empty()
                }
            };
            if !is_read {
                unread.push(&**name);
            }
        }
        Ok(unread)
    }
}

/// The rules whose conditions hold.
fn holding<'r>(
    rules: impl Iterator<Item = &'r Rule>,
    family: &Family,
    config: &Config,
) -> Result<Vec<&'r Rule>> {
    let mut kept = Vec::new();
    for rule in rules {
        if holds(rule, family, config)? {
            kept.push(rule);
        }
    }
    Ok(kept)
}

/// The tensors that config.json promises and no rule makes.
fn unmade_of_model(system: &System, family: &Family, config: &Config) -> Vec<String> {
    let rules = match holding(system.rules.iter(), family, config) {
        Ok(rules) => rules,
        Err(error) => return vec![format!("system {}: {error}", system.name)],
    };
    // The check of config.json itself reports why nothing can be promised.
    let promised = expected(family, config, 0).unwrap_or_default();
    let is_made = |tensor: &Expected<'_>| {
        let mut rules = rules.iter();
        rules.any(|rule| rule.to.values(&tensor.name).is_some())
    };
    let required = promised.iter().filter(|tensor| tensor.required);
    let (made, unmade): (Vec<_>, Vec<_>) = required.partition(|tensor| is_made(tensor));
    let names = brief_names(&unmade, &made).into_iter();
    let lines = names.map(|name| no_rule_makes(system, &name, family));
    lines.collect()
}

/// The form of all unmade tensors that share it; their own names where rules for single layers make others of that form.
fn brief_names(unmade: &[&Expected<'_>], made: &[&Expected<'_>]) -> Vec<String> {
    let made: BTreeSet<&str> = made.iter().map(|tensor| &*tensor.of.name.form).collect();
    let mut seen = BTreeSet::new();
    let mut names = Vec::new();
    for tensor in unmade {
        let form = &*tensor.of.name.form;
        if made.contains(form) {
            names.push(tensor.name.clone());
        } else if seen.insert(form) {
            names.push(form.to_owned());
        }
    }
    names
}

fn no_rule_makes(system: &System, form: &str, family: &Family) -> String {
    let (system, family) = (&system.name, &family.name);
    format!("system {system}: no rule makes {form} of family {family}")
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
    unmade
        .map(|tensor| no_rule_makes(system, &tensor.name.form, family))
        .collect()
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
