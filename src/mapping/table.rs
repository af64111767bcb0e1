//! The names of a system: rules from its tensors to those of a family.

use std::fmt;
use std::slice;
use std::sync::Arc;

use serde::Deserialize;

use super::expression::Expression;
use super::operation::Operation;
use super::pattern::{Names, Pattern};
use super::template::Template;

/// The names of some families' tensors in one system.
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
    /// A remark for users who have such names.
    pub note: Option<String>,
    /// Tensors of the directory that the system has no place for and does not need.
    #[serde(default)]
    pub leave: Vec<Drop>,
    /// Why the system has no place for what the family passes, such as a vision tower, if it has none.
    pub leave_passed: Option<String>,
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
