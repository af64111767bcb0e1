//! Mapping tables: TOML files that say what a model family consists of and what each system calls it.

use std::collections::BTreeMap;
use std::path::Path;

use include_dir::{Dir, include_dir};
use serde::Deserialize;

use super::derive::Derivation;
use super::expression::{Expression, Scope};
use super::operation::Operation;
use super::pattern::Pattern;
use crate::error::{Error, Result};

/// The tables that come with the program.
static EMBEDDED: Dir = include_dir!("$CARGO_MANIFEST_DIR/src/mapping/tables");

/// All families and systems known.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tables {
    #[serde(default, rename = "family")]
    pub families: Vec<Family>,
    #[serde(default, rename = "system")]
    pub systems: Vec<System>,
    #[serde(default, rename = "config")]
    pub derivations: Vec<Derivation>,
}

/// A model family as Hugging Face lays it out.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Family {
    pub name: String,
    /// The values of `model_type` in config.json.
    pub model_types: Vec<String>,
    /// How far each variable of the names counts.
    #[serde(default)]
    pub variables: BTreeMap<String, Expression>,
    /// What the model class assumes where config.json is silent.
    #[serde(default)]
    pub defaults: BTreeMap<String, Expression>,
    /// In the order in which `save_pretrained` writes them.
    pub tensors: Vec<FamilyTensor>,
    /// Where this holds a tensor may be missing: layers that transformers neither loads nor writes.
    pub optional: Option<Expression>,
    /// Beginnings of names that are taken as they are: towers of a multimodal model.
    #[serde(default)]
    pub pass: Vec<String>,
    /// The output head, which a tied model has not.
    #[serde(default = "lm_head")]
    pub head: String,
    /// What the output head is tied to.
    #[serde(default = "embed_tokens")]
    pub embedding: String,
    /// Buffers that old versions saved and no reader wants.
    #[serde(default)]
    pub drop: Vec<Drop>,
    /// Tensors that a cast leaves in f32.
    #[serde(default)]
    pub keep_f32: Vec<Names>,
    /// Tensors that are no parameters, which `total_parameters` leaves out.
    #[serde(default)]
    pub buffers: Vec<Names>,
}

fn lm_head() -> String {
    "lm_head.weight".to_owned()
}

fn embed_tokens() -> String {
    "model.embed_tokens.weight".to_owned()
}

impl System {
    /// The rules that only rename: the form of the new name, and a pattern of the old one.
    pub fn renames(&self) -> impl Iterator<Item = (String, &Pattern)> {
        let plain =
            |rule: &&Rule| rule.pre.is_empty() && rule.ops.is_empty() && rule.then.is_empty();
        self.rules.iter().filter(plain).flat_map(|rule| {
            let patterns = match &rule.from {
                OneOrMany::One(names) => &*names.0,
                OneOrMany::Many(_) => &[],
            };
            patterns.iter().map(|pattern| (rule.to.form(), pattern))
        })
    }
}

impl Family {
    /// Whether a cast leaves the tensor in f32.
    pub fn stays_f32(&self, name: &str) -> bool {
        self.keep_f32.iter().any(|names| names.matches(name))
    }

    /// Whether the tensor is no parameter.
    pub fn is_buffer(&self, name: &str) -> bool {
        self.buffers.iter().any(|names| names.matches(name))
    }

    /// Whether a name belongs to a part that the table does not list.
    pub fn passes(&self, name: &str) -> bool {
        self.pass.iter().any(|prefix| name.starts_with(&**prefix))
    }
}

/// `[name, shape]`, or `[name, shape, condition]`; the condition `optional` means that both are right.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Vec<String>")]
pub struct FamilyTensor {
    pub name: Pattern,
    pub template: Template,
    /// `None`, spelled `_`, for a size that config.json does not tell.
    pub shape: Vec<Option<Expression>>,
    pub presence: Presence,
}

#[derive(Debug)]
pub enum Presence {
    Always,
    When(Expression),
    Optional,
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
}

/// How tensors of the source become tensors of the directory.
///
/// A variable that only `to` has counts along the first axis of the source, which is cut there; a variable that only
/// `from` has numbers the slices of a new first axis.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    pub from: OneOrMany,
    pub to: Template,
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
    /// Applied to the result.
    #[serde(default)]
    pub then: Vec<Operation>,
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
}

/// The sources of a rule, each with its spellings.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany {
    One(Names),
    Many(Vec<Names>),
}

impl OneOrMany {
    pub fn as_slice(&self) -> &[Names] {
        match self {
            Self::One(names) => std::slice::from_ref(names),
            Self::Many(names) => names,
        }
    }
}

/// All spellings of a name.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct Names(pub Vec<Pattern>);

impl Names {
    pub fn matches(&self, name: &str) -> bool {
        let (form, numbers) = super::pattern::form_of(name);
        self.0
            .iter()
            .any(|pattern| pattern.form == form && pattern.bind(&numbers).is_some())
    }
}

impl TryFrom<String> for Names {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Self, String> {
        Pattern::parse(&text).map(Self)
    }
}

/// A name to be made: text with `{expression}` in it.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct Template {
    pieces: Vec<(String, Option<Expression>)>,
}

impl Template {
    /// Every name that decides what the text becomes.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let expressions = self
            .pieces
            .iter()
            .filter_map(|(_, expression)| expression.as_ref());
        expressions.flat_map(Expression::names)
    }

    /// The form of the names that come out: `{}` for each expression.
    pub fn form(&self) -> String {
        let piece = |(plain, expression): &(String, Option<Expression>)| match expression {
            Some(_) => format!("{plain}{{}}"),
            None => plain.clone(),
        };
        self.pieces.iter().map(piece).collect()
    }

    pub fn fill(&self, scope: &dyn Scope) -> std::result::Result<String, String> {
        let mut text = String::new();
        for (plain, expression) in &self.pieces {
            text.push_str(plain);
            if let Some(expression) = expression {
                text.push_str(&expression.evaluate(scope)?.to_string());
            }
        }
        Ok(text)
    }
}

impl TryFrom<String> for Template {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Self, String> {
        let pieces = text
            .split_inclusive('}')
            .map(|piece| match piece.split_once('{') {
                Some((plain, inner)) => {
                    let expression = inner
                        .strip_suffix('}')
                        .ok_or_else(|| format!("no }} in {piece:?}"))?;
                    Ok((plain.to_owned(), Some(expression.parse()?)))
                }
                None => Ok((piece.to_owned(), None)),
            })
            .collect::<std::result::Result<_, String>>()?;
        Ok(Self { pieces })
    }
}

impl TryFrom<Vec<String>> for FamilyTensor {
    type Error = String;

    fn try_from(fields: Vec<String>) -> std::result::Result<Self, String> {
        let [name, shape, rest @ ..] = &*fields else {
            return Err(format!("{fields:?} lacks a name or a shape"));
        };
        let [pattern] = &*Pattern::parse(name)? else {
            return Err(format!("{name:?} stands for several names"));
        };
        let presence = match rest {
            [] => Presence::Always,
            [word] if word == "optional" => Presence::Optional,
            [condition] => Presence::When(condition.parse()?),
            _ => {
                return Err(format!(
                    "{fields:?} has more than a name, a shape and a condition"
                ));
            }
        };
        let size = |text: &str| match text.trim() {
            "_" => Ok(None),
            text => text.parse().map(Some),
        };
        Ok(Self {
            name: pattern.clone(),
            template: name.clone().try_into()?,
            shape: shape
                .split(',')
                .map(size)
                .collect::<std::result::Result<_, _>>()?,
            presence,
        })
    }
}

impl Tables {
    /// The embedded tables, after those of the user's own file, which win.
    pub fn load(user: Option<&Path>) -> Result<Self> {
        let mut tables = match user {
            None => Self::default(),
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|error| Error::io(path, error))?;
                Self::parse(path, &text)?
            }
        };
        for file in EMBEDDED.files() {
            let text = file.contents_utf8().unwrap_or_default();
            let embedded = Self::parse(file.path(), text)?;
            tables.families.extend(embedded.families);
            tables.systems.extend(embedded.systems);
            tables.derivations.extend(embedded.derivations);
        }
        Ok(tables)
    }

    pub fn family(&self, model_type: &str) -> Option<&Family> {
        let is_type = |family: &&Family| {
            family.name == model_type || family.model_types.iter().any(|each| each == model_type)
        };
        self.families.iter().find(is_type)
    }

    /// The systems that have rules for a family, those that name it first.
    pub fn systems_of<'a>(&'a self, family: &'a Family) -> impl Iterator<Item = &'a System> {
        let names = |wanted: &'a str| {
            move |system: &&System| system.families.iter().any(|each| each == wanted)
        };
        let all = self.systems.iter();
        all.clone()
            .filter(names(&family.name))
            .chain(all.filter(names("*")))
    }

    fn parse(path: &Path, text: &str) -> Result<Self> {
        toml::from_str(text).map_err(|error| {
            let line = error
                .span()
                .map_or(0, |span| text[..span.start].lines().count());
            Error::malformed(path, format!("line {line}: {}", error.message()))
        })
    }
}
