//! Parts of tables: lists that several families or systems share, written once.
//!
//! In a list of a family, a system or a part, `{ use = "NAME" }` stands for the list of the same key that `[[part]]` NAME has,
//! at that place. `$word` in the texts of a part is what the use says, or else what `with` of the part says:
//!
//! ```toml
//! [[part]]
//! name = "gated"
//! with = { of = "mlp" }
//! rules = [
//!   { from = "$at.w1.weight", to = "model.layers.{layer}.$of.gate_proj.weight" },
//!   { from = "$at.w3.weight", to = "model.layers.{layer}.$of.up_proj.weight" },
//! ]
//!
//! [[system]]
//! name = "nova"
//! families = ["nova"]
//! rules = [{ use = "gated", at = "layers.{layer}.feed_forward" }, { from = "norm.weight", to = "model.norm.weight" }]
//! ```
//!
//! A table such as `defaults` takes with `use` the entries of the part's table that it has not itself.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

/// Most uses inside uses.
const DEEPEST: usize = 8;

/// Most entries that a file's uses may stand for, more than ten times those of all embedded tables.
const MOST_ENTRIES: usize = 1 << 15;

/// The key that names a part.
const USE: &str = "use";

/// Parts by name, of some files, and those that lie below them.
#[derive(Debug, Default)]
pub struct Parts<'t> {
    own: BTreeMap<String, DeTable<'t>>,
    below: Option<&'t Parts<'static>>,
}

/// A fault of a table and where it stands.
#[derive(Debug)]
pub struct Fault {
    pub at: Range<usize>,
    pub reason: String,
}

type Result<T> = std::result::Result<T, Fault>;

type Value<'t> = Spanned<DeValue<'t>>;

/// Where a part is used.
#[derive(Debug)]
struct Site<'c> {
    words: BTreeMap<String, String>,
    /// The use in the file at hand, for entries that are of another file.
    at: Option<Range<usize>>,
    depth: usize,
    /// Entries and uses so far.
    entries: &'c Cell<usize>,
}

impl<'t> Parts<'t> {
    /// No parts but those `below`.
    pub fn above(below: &'t Parts<'static>) -> Self {
        Self {
            own: BTreeMap::new(),
            below: Some(below),
        }
    }

    /// Adds the part that a `[[part]]` is.
    pub fn add(&mut self, part: &Value<'t>) -> Result<()> {
        let fault = |reason: String| Err(Fault::new(part.span(), reason));
        let Some(table) = part.get_ref().as_table() else {
            return fault("a part is no table".to_owned());
        };
        let Some(name) = text(table, "name") else {
            return fault("a part has no name".to_owned());
        };
        match self.own.insert(name.to_owned(), table.clone()) {
            None => Ok(()),
            Some(_) => fault(format!("there are two parts {name}")),
        }
    }

    /// `owner`, a family or a system, with the parts' entries in the place of their uses.
    pub fn expand(&self, owner: &DeTable<'t>) -> Result<DeTable<'t>> {
        let site = Site {
            words: BTreeMap::new(),
            at: None,
            depth: 0,
            entries: &Cell::new(0),
        };
        let mut whole = DeTable::new();
        for (key, value) in owner {
            let expanded = match value.get_ref() {
                DeValue::Array(items) => array(self.list(key.get_ref(), items, &site)?),
                DeValue::Table(table) => DeValue::Table(self.table(key.get_ref(), table, &site)?),
                other => other.clone(),
            };
            whole.insert(key.clone(), Spanned::new(value.span(), expanded));
        }
        Ok(whole)
    }

    /// The entries of a list, with those of parts.
    fn list(&self, key: &str, items: &[Value<'t>], site: &Site) -> Result<Vec<Value<'t>>> {
        let mut all = Vec::with_capacity(items.len());
        for item in items {
            let used = item.get_ref().as_table();
            let Some(used) = used.filter(|item| item.contains_key(USE)) else {
                all.push(self.entry(item, site)?);
                continue;
            };
            let at = site.at.clone().unwrap_or(item.span());
            site.count(&at)?;
            let (name, part) = self.part(used, &at, site)?;
            let Some(items) = part
                .table
                .get(key)
                .and_then(|list| list.get_ref().as_array())
            else {
                return Err(Fault::new(at, format!("part {name} has no list {key}")));
            };
            let mut inner = part.site(&at, site)?;
            for (key, value) in used.iter().filter(|(key, _)| key.get_ref() != USE) {
                let value = words(value.get_ref().as_str().unwrap_or_default(), site);
                let value = value.map_err(|reason| Fault::new(at.clone(), reason))?;
                inner
                    .set(&name, part.table, key.get_ref(), value)
                    .map_err(|reason| Fault::new(at.clone(), reason))?;
            }
            all.extend(self.list(key, items, &inner)?);
        }
        Ok(all)
    }

    /// A table with the entries of the part that it uses.
    fn table(&self, key: &str, table: &DeTable<'t>, site: &Site) -> Result<DeTable<'t>> {
        let mut whole = DeTable::new();
        if let Some(used) = table.get(USE) {
            let at = site.at.clone().unwrap_or(used.span());
            let (name, part) = self.part(table, &at, site)?;
            let Some(entries) = part.table.get(key).and_then(|own| own.get_ref().as_table()) else {
                return Err(Fault::new(at, format!("part {name} has no table {key}")));
            };
            whole = self.table(key, entries, &part.site(&at, site)?)?;
        }
        for (key, value) in table.iter().filter(|(key, _)| key.get_ref() != USE) {
            whole.remove(&**key.get_ref());
            whole.insert(key.clone(), self.entry(value, site)?);
        }
        Ok(whole)
    }

    /// One entry, with its words filled in.
    fn entry(&self, entry: &Value<'t>, site: &Site) -> Result<Value<'t>> {
        let at = site.at.clone().unwrap_or(entry.span());
        site.count(&at)?;
        fill(entry, site).map_err(|reason| Fault::new(at, reason))
    }

    /// The part that a use names.
    fn part(
        &self,
        used: &DeTable<'t>,
        at: &Range<usize>,
        site: &Site,
    ) -> Result<(String, Part<'_, 't>)> {
        let fault = |reason: String| Fault::new(at.clone(), reason);
        let name = used.get(USE).and_then(|name| name.get_ref().as_str());
        let name = words(name.unwrap_or_default(), site).map_err(fault)?;
        let own = self.own.get(&name).map(|table| (table, false));
        let below = || Some((self.below?.own.get(&name)?, true));
        match own.or_else(below) {
            Some((table, is_of_other_file)) => Ok((
                name,
                Part {
                    table,
                    is_of_other_file,
                },
            )),
            None => Err(fault(format!("there is no part {name}"))),
        }
    }
}

/// A part that is used.
struct Part<'p, 't> {
    table: &'p DeTable<'t>,
    is_of_other_file: bool,
}

impl Part<'_, '_> {
    /// Its own words, as a use at `at` inside `outer` finds them.
    fn site<'c>(&self, at: &Range<usize>, outer: &Site<'c>) -> Result<Site<'c>> {
        if outer.depth >= DEEPEST {
            let reason = format!("parts are used in a circle, or more than {DEEPEST} deep");
            return Err(Fault::new(at.clone(), reason));
        }
        let with = self
            .table
            .get("with")
            .and_then(|with| with.get_ref().as_table());
        let with = with.into_iter().flatten();
        let word = |(key, value): (&Spanned<Cow<'_, str>>, &Value<'_>)| {
            Some((
                key.get_ref().to_string(),
                value.get_ref().as_str()?.to_owned(),
            ))
        };
        Ok(Site {
            words: with.filter_map(word).collect(),
            at: outer
                .at
                .clone()
                .or(self.is_of_other_file.then(|| at.clone())),
            depth: outer.depth + 1,
            entries: outer.entries,
        })
    }
}

impl Site<'_> {
    /// Counts one more entry or use.
    fn count(&self, at: &Range<usize>) -> Result<()> {
        let entries = self.entries.get().saturating_add(1);
        self.entries.set(entries);
        match entries <= MOST_ENTRIES {
            true => Ok(()),
            false => {
                let reason = format!("its uses stand for more than {MOST_ENTRIES} entries");
                Err(Fault::new(at.clone(), reason))
            }
        }
    }

    /// Takes what a use says of a word of part `name`.
    fn set(
        &mut self,
        name: &str,
        part: &DeTable<'_>,
        word: &str,
        value: String,
    ) -> std::result::Result<(), String> {
        let is_known =
            self.words.contains_key(word) || part.values().any(|own| speaks_of(own, word));
        self.words.insert(word.to_owned(), value);
        match is_known {
            true => Ok(()),
            false => Err(format!("part {name} does not speak of ${word}")),
        }
    }
}

impl Fault {
    pub fn new(at: Range<usize>, reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Self { at, reason }
    }

    /// The same, told of the family or system that has it.
    pub fn of(self, owner: &str) -> Self {
        let reason = format!("{owner}: {}", self.reason);
        Self { reason, ..self }
    }
}

/// The value with each `$word` filled in, at any depth.
fn fill<'t>(value: &Value<'t>, site: &Site) -> std::result::Result<Value<'t>, String> {
    let filled = match value.get_ref() {
        DeValue::String(text) if text.contains(SIGN) => DeValue::String(words(text, site)?.into()),
        DeValue::Array(items) => {
            let items = items.iter().map(|item| fill(item, site));
            array(items.collect::<std::result::Result<_, _>>()?)
        }
        DeValue::Table(table) => {
            let mut whole = DeTable::new();
            for (key, value) in table {
                whole.insert(key.clone(), fill(value, site)?);
            }
            DeValue::Table(whole)
        }
        other => other.clone(),
    };
    Ok(Spanned::new(
        site.at.clone().unwrap_or(value.span()),
        filled,
    ))
}

/// The text before a word.
const SIGN: char = '$';

/// The text with each `$word` filled in.
fn words(text: &str, site: &Site) -> std::result::Result<String, String> {
    let mut pieces = text.split(SIGN);
    let mut filled = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (word, rest) = split_word(piece);
        let Some(value) = site.words.get(word) else {
            return Err(format!("nothing says what ${word} of {text:?} is"));
        };
        filled.push_str(value);
        filled.push_str(rest);
    }
    Ok(filled)
}

/// The letters that a text begins with, and what follows.
fn split_word(text: &str) -> (&str, &str) {
    let end = text.find(|char: char| !char.is_ascii_lowercase());
    text.split_at(end.unwrap_or(text.len()))
}

/// Whether `$word` stands in a text of the value.
fn speaks_of(value: &Value<'_>, word: &str) -> bool {
    match value.get_ref() {
        DeValue::String(text) => text
            .split(SIGN)
            .skip(1)
            .any(|piece| split_word(piece).0 == word),
        DeValue::Array(items) => items.iter().any(|item| speaks_of(item, word)),
        DeValue::Table(table) => table.values().any(|value| speaks_of(value, word)),
        _ => false,
    }
}

fn array(items: Vec<Value<'_>>) -> DeValue<'_> {
    let mut array = DeArray::new();
    items.into_iter().for_each(|item| array.push(item));
    DeValue::Array(array)
}

fn text<'a>(table: &'a DeTable<'_>, key: &str) -> Option<&'a str> {
    table.get(key)?.get_ref().as_str()
}

#[cfg(test)]
mod tests;
