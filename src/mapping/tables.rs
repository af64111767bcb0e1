//! Mapping tables: TOML files that say what a model family consists of and what each system calls it.

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use include_dir::{Dir, include_dir};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue, Deserializer};

use super::derive::Derivation;
use super::family::Family;
use super::parts::{Fault, Parts};
use super::table::System;
use super::target::TargetNames;
use crate::error::{Error, Result};

/// The tables that come with the program.
static TABLES: Dir = include_dir!("$CARGO_MANIFEST_DIR/src/mapping/tables");

/// The lists of a file.
const FAMILY: &str = "family";
const SYSTEM: &str = "system";
const PART: &str = "part";

/// Most bytes of a user's own table, more than twice those of all embedded ones.
const LIMIT: u64 = 256 << 10;

/// All families and systems known: the embedded ones after those of the user's own file, which win.
#[derive(Debug)]
pub struct Tables {
    own: Table,
    /// The file of the user's own.
    file: Option<PathBuf>,
    embedded: &'static Table,
}

/// The entries of one file, or of several in a row.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    #[serde(default, rename = "family")]
    families: Vec<Family>,
    #[serde(default, rename = "system")]
    systems: Vec<System>,
    #[serde(default, rename = "config")]
    derivations: Vec<Derivation>,
    #[serde(default)]
    names: Vec<TargetNames>,
}

impl Tables {
    pub fn load(user: Option<&Path>) -> Result<Self> {
        let embedded = Embedded::get()?;
        let own = match user {
            None => Table::default(),
            Some(path) => {
                let text = text(path)?;
                let document = Document::parse(path, &text)?;
                let mut parts = Parts::above(&embedded.parts);
                document.add_parts(&mut parts)?;
                document.table(&parts)?
            }
        };
        let file = user.map(Path::to_owned);
        Ok(Self {
            own,
            file,
            embedded: &embedded.table,
        })
    }

    pub fn families(&self) -> impl Iterator<Item = &Family> {
        let all = self.own.families.iter().chain(&self.embedded.families);
        all.filter(|family| family.is_listed())
    }

    pub fn systems(&self) -> impl Iterator<Item = &System> + Clone {
        self.own.systems.iter().chain(&self.embedded.systems)
    }

    /// The names that can be written.
    pub fn targets(&self) -> impl Iterator<Item = &TargetNames> {
        self.own.names.iter().chain(&self.embedded.names)
    }

    /// The families of the user's own file.
    pub fn own_families(&self) -> impl Iterator<Item = &Family> {
        self.own.families.iter()
    }

    /// The systems of the user's own file.
    pub fn own_systems(&self) -> impl Iterator<Item = &System> {
        self.own.systems.iter()
    }

    pub fn knows_family(&self, name: &str) -> bool {
        let all = self.own.families.iter().chain(&self.embedded.families);
        all.into_iter().any(|family| family.name == name)
    }

    /// Where the rules of a system are, in words; only a user's own file has a name.
    pub fn place(&self, system: &System) -> String {
        let is_own = self.own.systems.iter().any(|own| std::ptr::eq(own, system));
        match self.file.as_deref().filter(|_| is_own) {
            Some(file) => format!("{}: ", file.display()),
            None => String::new(),
        }
    }

    /// Whether the user's own file has this family, or rules for it.
    pub fn speaks_of(&self, family: &Family) -> bool {
        let rules = |system: &System| system.families.contains(&family.name);
        self.own
            .families
            .iter()
            .any(|own| std::ptr::eq(own, family))
            || self.own.systems.iter().any(rules)
    }

    /// Returns the rules that make a config.json of this params.json, and the part of it that speaks of the model.
    pub fn derivation<'a, 'p>(
        &'a self,
        params: &'p Map<String, Value>,
    ) -> Option<(&'a Derivation, &'p Map<String, Value>)> {
        let model = params.get("model").and_then(Value::as_object);
        let model = model.unwrap_or(params);
        let own = self.own.derivations.iter();
        let mut all = own.chain(&self.embedded.derivations);
        Some((all.find(|each| each.applies(model))?, model))
    }

    /// Returns the values of config.json that params.json itself tells; none where it does not say enough.
    pub fn declared(&self, params: &Map<String, Value>) -> Map<String, Value> {
        let declared = self
            .derivation(params)
            .map(|(derivation, model)| derivation.declared(model));
        declared.and_then(Result::ok).unwrap_or_default()
    }

    pub fn family(&self, model_type: &str) -> Option<&Family> {
        self.families().find(|family| family.is(model_type))
    }

    /// The text on a family whose tensors are not listed.
    pub fn unknown_family(&self, model_type: &str) -> Option<&Family> {
        let all = self.own.families.iter().chain(&self.embedded.families);
        all.filter(|family| !family.is_listed())
            .find(|family| family.is(model_type))
    }

    /// The systems that have rules for a family, those that name it first.
    pub fn systems_of<'a>(&'a self, family: &'a Family) -> impl Iterator<Item = &'a System> {
        let names = |wanted: &'a str| {
            move |system: &&System| system.families.iter().any(|each| each == wanted)
        };
        let all = self.systems();
        all.clone()
            .filter(names(&family.name))
            .chain(all.filter(names("*")))
    }
}

/// A table of the user's, which may come out of a pipe.
fn text(path: &Path) -> Result<String> {
    if let Ok(false) = path.try_exists() {
        let wanted = "name a table in TOML as --mapping";
        return Err(Error::absent(path, wanted));
    }
    let failed = |error| Error::io(path, error);
    let file = File::open(path).map_err(failed)?;
    let mut text = String::new();
    file.take(LIMIT + 1)
        .read_to_string(&mut text)
        .map_err(failed)?;
    match text.len() as u64 <= LIMIT {
        true => Ok(text),
        false => {
            let reason = format!("has more than {LIMIT} bytes; name a table in TOML as --mapping");
            Err(Error::checkpoint(path, reason))
        }
    }
}

/// The entries of the embedded files, and the parts that users' own files may use.
struct Embedded {
    table: Table,
    parts: Parts<'static>,
}

impl Embedded {
    /// The embedded tables, parsed when they are first asked for.
    fn get() -> Result<&'static Self> {
        static EMBEDDED: OnceLock<Embedded> = OnceLock::new();
        if let Some(embedded) = EMBEDDED.get() {
            return Ok(embedded);
        }
        let files = TABLES.files().map(|file| {
            let text = file.contents_utf8().unwrap_or_default();
            Document::parse(file.path(), text)
        });
        let files = files.collect::<Result<Vec<_>>>()?;
        let mut parts = Parts::default();
        for file in &files {
            file.add_parts(&mut parts)?;
        }
        let mut table = Table::default();
        for file in files {
            table.extend(file.table(&parts)?);
        }
        Ok(EMBEDDED.get_or_init(|| Self { table, parts }))
    }
}

impl Table {
    fn extend(&mut self, other: Self) {
        self.families.extend(other.families);
        self.systems.extend(other.systems);
        self.derivations.extend(other.derivations);
        self.names.extend(other.names);
    }
}

/// A file's text, parsed as TOML.
struct Document<'t> {
    path: &'t Path,
    text: &'t str,
    root: Spanned<DeTable<'t>>,
}

impl<'t> Document<'t> {
    fn parse(path: &'t Path, text: &'t str) -> Result<Self> {
        match DeTable::parse(text) {
            Ok(root) => Ok(Self { path, text, root }),
            Err(error) => Err(refuse(path, text, fault(&error))),
        }
    }

    /// Adds the parts that the file has.
    fn add_parts(&self, parts: &mut Parts<'t>) -> Result<()> {
        let all = self.root.get_ref().get(PART).map(|all| all.get_ref());
        let all = all
            .and_then(DeValue::as_array)
            .into_iter()
            .flat_map(|all| all.iter());
        for part in all {
            parts.add(part).map_err(|fault| self.refuse(fault))?;
        }
        Ok(())
    }

    /// Returns the file's entries, with those of `parts` in the place of their uses.
    fn table(mut self, parts: &Parts<'t>) -> Result<Table> {
        let families = self.take(FAMILY, parts)?;
        let systems = self.take(SYSTEM, parts)?;
        self.root.get_mut().remove(PART);
        let rest = Table::deserialize(Deserializer::from(self.root));
        let rest = rest.map_err(|error| refuse(self.path, self.text, fault(&error)))?;
        Ok(Table {
            families,
            systems,
            ..rest
        })
    }

    /// The entries of `[[kind]]`, which leave the document.
    fn take<T: DeserializeOwned>(&mut self, kind: &str, parts: &Parts<'t>) -> Result<Vec<T>> {
        let is_list = |value: &Spanned<DeValue<'_>>| {
            let list = value.get_ref().as_array();
            list.is_some_and(|list| list.iter().all(|one| one.get_ref().is_table()))
        };
        let Some(list) = self
            .root
            .get_ref()
            .get(kind)
            .filter(|value| is_list(value))
            .cloned()
        else {
            return Ok(Vec::new());
        };
        self.root.get_mut().remove(kind);
        let entries = list
            .get_ref()
            .as_array()
            .into_iter()
            .flat_map(|list| list.iter());
        let one = |entry: &Spanned<DeValue<'t>>| {
            let table = entry.get_ref().as_table().cloned().unwrap_or_default();
            let named = |fault: Fault| self.refuse(fault.of(&name_of(kind, &table)));
            let whole = parts.expand(&table).map_err(named)?;
            let read = read(&whole, entry.span());
            read.map_err(|error| named(blamed::<T>(fault(&error), &whole)))
        };
        entries.map(one).collect()
    }

    fn refuse(&self, fault: Fault) -> Error {
        refuse(self.path, self.text, fault)
    }
}

/// The family or system that `table` is, in words.
fn name_of(kind: &str, table: &DeTable<'_>) -> String {
    let text =
        |value: &Spanned<DeValue<'_>>| value.get_ref().as_str().unwrap_or_default().to_owned();
    let name = table.get("name").map(text).unwrap_or_default();
    let families = table
        .get("families")
        .and_then(|all| all.get_ref().as_array());
    match families {
        None => format!("{kind} {name}"),
        Some(all) => {
            let all: Vec<String> = all.iter().map(text).collect();
            format!("{kind} {name}, family {}", all.join(", "))
        }
    }
}

fn read<T: DeserializeOwned>(
    table: &DeTable<'_>,
    span: Range<usize>,
) -> std::result::Result<T, toml::de::Error> {
    T::deserialize(Deserializer::from(Spanned::new(span, table.clone())))
}

fn fault(error: &toml::de::Error) -> Fault {
    Fault::new(error.span().unwrap_or_default(), error.message())
}

/// The fault with the entry of a list that has it.
fn blamed<T: DeserializeOwned>(fault: Fault, owner: &DeTable<'_>) -> Fault {
    let lists = owner
        .iter()
        .filter_map(|(key, list)| Some((key, list.get_ref().as_array()?)));
    for (key, entries) in lists {
        let persists = |entries: &[Spanned<DeValue<'_>>]| {
            let mut list = DeArray::new();
            entries.iter().for_each(|entry| list.push(entry.clone()));
            let mut owner = owner.clone();
            owner.insert(key.clone(), Spanned::new(0..0, DeValue::Array(list)));
            let error = read::<T>(&owner, 0..0).err();
            error.is_some_and(|error| error.message() == fault.reason)
        };
        if !persists(&[])
            && let Some(entry) = entries.chunks(1).find(|entry| persists(entry))
        {
            return fault.of(&format!(
                "{key} {}",
                entry.first().map_or(String::new(), described)
            ));
        }
    }
    fault
}

/// The first text of an entry, by which it is found.
fn described(entry: &Spanned<DeValue<'_>>) -> String {
    let first = match entry.get_ref() {
        DeValue::Array(items) => items.first().map(described),
        DeValue::Table(table) => ["from", "name"]
            .into_iter()
            .find_map(|key| table.get(key))
            .map(described),
        value => value.as_str().map(str::to_owned),
    };
    first.unwrap_or_default()
}

fn refuse(path: &Path, text: &str, fault: Fault) -> Error {
    let before = text.get(..fault.at.start).unwrap_or_default();
    let reason = format!(
        "line {}: {}; mend the table",
        before.lines().count(),
        fault.reason
    );
    Error::checkpoint(path, reason)
}
