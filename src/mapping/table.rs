//! Mapping tables: TOML files that say what a model family consists of and what each system calls it.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::slice;
use std::sync::{Arc, OnceLock};

use include_dir::{Dir, include_dir};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::derive::Derivation;
use super::expression::Expression;
use super::family::Family;
use super::operation::Operation;
use super::pattern::{Names, Pattern};
use super::target::TargetNames;
use super::template::Template;
use crate::error::{Error, Result};

/// The tables that come with the program.
static EMBEDDED: Dir = include_dir!("$CARGO_MANIFEST_DIR/src/mapping/tables");

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

/// What one file, or several in a row, say.
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

/// What one system calls the tensors of some families.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct System {
    pub name: String,
    /// Names of families, or `*` for all.
    pub families: Vec<String>,
    /// Names of the family stand for themselves.
    #[serde(default)]
    pub identity: bool,
    #[serde(default)]
    pub rules: Vec<Rule>,
    #[serde(default)]
    pub drop: Vec<Drop>,
    /// Beginnings of names that stand for themselves, and what comes in their place.
    #[serde(default)]
    pub starts: Vec<(String, String)>,
    /// Files beside the weights, or beginnings of the numbered folder's name, ending in `_`, that only this system writes.
    /// Its names are another's and mean other tensors: without these it is taken only where `--system` names it.
    #[serde(default)]
    pub marks: Vec<String>,
    /// What a user should know who has such names.
    pub note: Option<String>,
    /// Tensors of the directory that the system has no place for and does not need.
    #[serde(default)]
    pub leave: Vec<Drop>,
}

impl System {
    /// The name in the directory of a tensor that no rule makes.
    pub fn own_name(&self, name: &Arc<str>) -> Arc<str> {
        let restarted = |(old, new): &(String, String)| {
            let rest = name.strip_prefix(&**old)?;
            Some(format!("{new}{rest}").into())
        };
        let restarted = self.starts.iter().find_map(restarted);
        restarted.unwrap_or_else(|| name.clone())
    }

    /// The rules that keep shapes: the form of the new name, and a pattern of the old one.
    pub fn renames(&self) -> impl Iterator<Item = (String, &Pattern)> {
        let plain = |rule: &&Rule| {
            let ops = [&rule.pre, &rule.ops, &rule.then];
            ops.into_iter().flatten().all(Operation::keeps_shape)
        };
        self.rules.iter().filter(plain).flat_map(|rule| {
            let patterns = match &rule.from {
                OneOrMany::One(names) => &*names.0,
                OneOrMany::Many(_) => &[],
            };
            patterns.iter().map(|pattern| (rule.to.form(), pattern))
        })
    }
}

/// How tensors of the source become tensors of the directory.
///
/// A variable that only `to` has counts along the first axis of the source, which is cut there; a variable that only
/// `from` has numbers the slices of a new first axis.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    pub from: OneOrMany,
    pub to: Template,
    /// Where it does not hold there is no such rule.
    pub when: Option<Expression>,
    /// Applied first, before an axis is cut.
    #[serde(default)]
    pub pre: Vec<Operation>,
    /// Applied to each part of each source.
    #[serde(default)]
    pub ops: Vec<Operation>,
    /// The dimension along which tensor-parallel parts follow each other. Without it the parts are equal.
    pub join: Option<Expression>,
    /// The dimension along which the sources of `from` follow each other.
    pub concat: Option<usize>,
    /// The sizes along `concat` of the sources, without which they cannot be told apart again.
    #[serde(default)]
    pub parts: Vec<Expression>,
    /// Applied to the result.
    #[serde(default)]
    pub then: Vec<Operation>,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = |names: &Names| names.0.first().map(ToString::to_string);
        let from: Vec<String> = self.from.as_slice().iter().filter_map(first).collect();
        write!(f, "{} -> {}", from.join(" + "), self.to)
    }
}

/// A weight that has no place in the directory, and why.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drop {
    pub name: Names,
    pub why: String,
    /// Warn when it holds anything but zeros.
    #[serde(default)]
    pub unless_zero: bool,
    /// The tensor of the system that has as many rows. The system's own readers want this one, so that zeros stand for it
    /// where the names are written.
    pub rows_of: Option<Names>,
}

/// The sources of a rule, each with its spellings.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "Texts")]
pub enum OneOrMany {
    One(Names),
    Many(Vec<Names>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Texts {
    One(String),
    Many(Vec<String>),
}

impl TryFrom<Texts> for OneOrMany {
    type Error = String;

    fn try_from(texts: Texts) -> std::result::Result<Self, String> {
        match texts {
            Texts::One(text) => text.try_into().map(Self::One),
            Texts::Many(texts) => {
                let names = texts.into_iter().map(Names::try_from);
                names.collect::<std::result::Result<_, _>>().map(Self::Many)
            }
        }
    }
}

impl OneOrMany {
    pub fn as_slice(&self) -> &[Names] {
        match self {
            Self::One(names) => slice::from_ref(names),
            Self::Many(names) => names,
        }
    }
}

impl Tables {
    pub fn load(user: Option<&Path>) -> Result<Self> {
        let own = match user {
            None => Table::default(),
            Some(path) => Table::parse(path, &text(path)?)?,
        };
        let embedded = Table::embedded()?;
        let file = user.map(Path::to_owned);
        Ok(Self {
            own,
            file,
            embedded,
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

    /// What makes a config.json of this params.json, and the part of it that speaks of the model.
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

    /// What params.json itself tells of config.json; nothing where it does not say enough.
    pub fn declared(&self, params: &Map<String, Value>) -> Map<String, Value> {
        let declared = self
            .derivation(params)
            .map(|(derivation, model)| derivation.declared(model));
        declared.and_then(Result::ok).unwrap_or_default()
    }

    pub fn family(&self, model_type: &str) -> Option<&Family> {
        self.families().find(|family| family.is(model_type))
    }

    /// What is told of a family whose tensors are not listed.
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

impl Table {
    /// The embedded tables, parsed when they are first asked for.
    fn embedded() -> Result<&'static Self> {
        static TABLE: OnceLock<Table> = OnceLock::new();
        if let Some(table) = TABLE.get() {
            return Ok(table);
        }
        let mut table = Self::default();
        for file in EMBEDDED.files() {
            let text = file.contents_utf8().unwrap_or_default();
            let next = Self::parse(file.path(), text)?;
            table.families.extend(next.families);
            table.systems.extend(next.systems);
            table.derivations.extend(next.derivations);
            table.names.extend(next.names);
        }
        Ok(TABLE.get_or_init(|| table))
    }

    fn parse(path: &Path, text: &str) -> Result<Self> {
        toml::from_str(text).map_err(|error| {
            let line = error
                .span()
                .map_or(0, |span| text[..span.start].lines().count());
            let reason = format!("line {line}: {}; mend the table", error.message());
            Error::checkpoint(path, reason)
        })
    }
}
