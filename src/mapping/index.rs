//! Which rule a name belongs to, found by the name's form.

use foldhash::{HashMap, HashMapExt};

use super::family::Family;
use super::pattern::{Bindings, Pattern, form_of};
use super::table::{Drop, System};

pub enum Found<'a> {
    Nothing,
    Itself,
    Dropped(&'a Drop),
    /// Number of the rule, entry of its `from`, values of its variables.
    Rules(Vec<(usize, usize, Bindings)>),
}

/// A system's patterns by the form of the names that they match.
pub struct Index<'a> {
    rules: HashMap<&'a str, Vec<(usize, usize, &'a Pattern)>>,
    drops: HashMap<&'a str, Vec<(&'a Pattern, &'a Drop)>>,
    own: HashMap<&'a str, &'a Pattern>,
    passes: Option<&'a Family>,
}

impl<'a> Index<'a> {
    pub fn new(system: &'a System, family: &'a Family) -> Self {
        let mut rules: HashMap<_, Vec<_>> = HashMap::new();
        for (number, rule) in system.rules.iter().enumerate() {
            for (entry, names) in rule.from.as_slice().iter().enumerate() {
                for pattern in &names.0 {
                    rules
                        .entry(&*pattern.form)
                        .or_default()
                        .push((number, entry, pattern));
                }
            }
        }
        let mut drops: HashMap<_, Vec<_>> = HashMap::new();
        for drop in system.drop.iter().chain(&family.drop) {
            for pattern in &drop.name.0 {
                drops
                    .entry(&*pattern.form)
                    .or_default()
                    .push((pattern, drop));
            }
        }
        let own = family.tensors.iter().filter(|_| system.identity);
        Self {
            rules,
            drops,
            own: own
                .map(|tensor| (&*tensor.name.form, &tensor.name))
                .collect(),
            passes: system.identity.then_some(family),
        }
    }

    pub fn find(&self, name: &str) -> Found<'a> {
        let (form, numbers) = form_of(name);
        let rules = self.rules.get(&*form).into_iter().flatten();
        let claims: Vec<_> = rules
            .filter_map(|(rule, entry, pattern)| Some((*rule, *entry, pattern.bind(&numbers)?)))
            .collect();
        if !claims.is_empty() {
            return Found::Rules(claims);
        }
        let mut drops = self.drops.get(&*form).into_iter().flatten();
        if let Some((_, drop)) = drops.find(|(pattern, _)| pattern.bind(&numbers).is_some()) {
            return Found::Dropped(drop);
        }
        let passes = self.passes.is_some_and(|family| family.passes(name));
        match self
            .own
            .get(&*form)
            .and_then(|pattern| pattern.bind(&numbers))
        {
            None if !passes => Found::Nothing,
            _ => Found::Itself,
        }
    }
}
