//! The model classes of transformers: which names each has in files and in memory, and how one becomes the other.
//!
//! `classes/names.txt` is one graph of name components for all classes, in which equal subtrees are one node: a line is a
//! node, `weight` ends a name there, `mlp:12` leads to the node of line 12. `classes/conversions.txt` has a table for each
//! class that holds other names in memory than it writes. Both are written from transformers' own classes by
//! `tests/consumers/names`. They are text, read as far as one class needs.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::family::Family;
use super::table::System;
use crate::checkpoint::form_of;
use crate::error::{Error, Result};

const NAMES: &str = include_str!("classes/names.txt");
const CONVERSIONS: &str = include_str!("classes/conversions.txt");

/// Most names of a class that are looked through for the nearest ones.
const MOST_NAMES: usize = 1 << 14;
/// The component of a form that stands for a number.
const NUMBER: &str = "{}";
/// How many of the nearest names are told.
const NEAREST: usize = 3;

/// All classes that are known.
pub struct Classes {
    nodes: Vec<&'static str>,
    ties: Vec<&'static str>,
    classes: Vec<Class>,
}

/// A model class.
#[derive(Debug, Clone, Copy)]
pub struct Class {
    pub name: &'static str,
    pub model_type: &'static str,
    /// The attribute that holds the base model, where the class puts a head on one.
    pub base: &'static str,
    saved: usize,
    memory: usize,
    conversion: Option<&'static str>,
    ties: Option<usize>,
}

/// Where names stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the files of `save_pretrained`.
    Files,
    /// In `state_dict()`.
    Memory,
}

/// How what a class holds in memory becomes what it writes.
#[derive(Debug, Deserialize)]
pub struct Conversion {
    #[serde(rename = "family")]
    families: Vec<Family>,
    #[serde(rename = "system")]
    systems: Vec<System>,
}

impl Conversion {
    pub fn parts(&self) -> Option<(&Family, &System)> {
        Some((self.families.first()?, self.systems.first()?))
    }
}

/// A tensor that `save_pretrained` leaves out.
#[derive(Debug, Clone, Copy)]
pub struct Copied {
    /// The form of its name in memory.
    pub form: &'static str,
    /// The form of the name of the one that it is tied to; none for one that is never written.
    pub of: Option<&'static str>,
    /// Whether the class ties the two where config.json is silent.
    pub by_default: bool,
}

/// A part of a class of which there is no tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lacking {
    /// The start of its names' forms, up to a dot or to the end.
    pub path: String,
    /// Whether names in it are numbered, as those of layers are.
    pub has_layers: bool,
}

impl Classes {
    pub fn load() -> Self {
        let mut sections = NAMES.split_inclusive("]\n").skip(1);
        let mut section = || -> Vec<&'static str> {
            let lines = sections.next().unwrap_or_default().lines();
            lines.filter(|line| !line.starts_with('[')).collect()
        };
        let (nodes, ties, lines) = (section(), section(), section());
        let classes = lines.iter().filter_map(|line| Class::parse(line)).collect();
        Self {
            nodes,
            ties,
            classes,
        }
    }

    pub fn class(&self, name: &str) -> Option<&Class> {
        self.classes.iter().find(|class| class.name == name)
    }

    pub fn of_type(&self, model_type: &str) -> Vec<&Class> {
        let all = self.classes.iter();
        all.filter(|class| class.model_type == model_type).collect()
    }

    /// Returns whether a class is what others put their heads on: none of its names begins with their attribute for it.
    pub fn is_base(&self, class: &Class) -> bool {
        let lines = [class.saved, class.memory].map(|node| self.nodes.get(node));
        let mut tokens = lines.into_iter().flatten().flat_map(|line| line.split(' '));
        !tokens.any(|token| token.split(':').next() == Some(class.base))
    }

    /// The tops of a class's names in files below which it has names, but none of `forms`.
    pub fn lacking(&self, class: &Class, forms: &BTreeSet<String>) -> Vec<Lacking> {
        let mut all = Vec::new();
        self.collect_lacking(class.saved, "", forms, &mut all);
        all
    }

    fn collect_lacking(
        &self,
        node: usize,
        prefix: &str,
        forms: &BTreeSet<String>,
        all: &mut Vec<Lacking>,
    ) {
        for (name, inner) in self.tokens(node) {
            let path = format!("{prefix}{name}");
            match inner {
                None if forms.contains(&path) => {}
                Some(inner) if has_below(forms, &path) => {
                    self.collect_lacking(inner, &format!("{path}."), forms, all)
                }
                _ => all.push(Lacking {
                    has_layers: inner.is_some_and(|inner| self.has_layers(inner)),
                    path,
                }),
            }
        }
    }

    /// Returns whether names below a node are numbered.
    fn has_layers(&self, node: usize) -> bool {
        self.tokens(node).any(|(name, inner)| {
            inner.is_some_and(|inner| name == NUMBER || self.has_layers(inner))
        })
    }

    /// The components at a node, each with the node that it leads to; none for one that ends a name.
    fn tokens(&self, node: usize) -> impl Iterator<Item = (&'static str, Option<usize>)> {
        let tokens = self
            .nodes
            .get(node)
            .into_iter()
            .flat_map(|line| line.split(' '));
        tokens.map(move |token| {
            let inner = token.rsplit_once(':');
            // Nodes are written after those that they lead to.
            let inner = inner.and_then(|(name, inner)| Some((name, inner.parse().ok()?)));
            match inner.filter(|(_, inner)| *inner < node) {
                Some((name, inner)) => (name, Some(inner)),
                None => (token, None),
            }
        })
    }

    /// Returns whether a class has names in files that are, or stand below, `path`.
    pub fn has_path(&self, class: &Class, path: &str) -> bool {
        self.at(class, path).is_some()
    }

    /// The forms of a class in files that are, or stand below, `path`.
    pub fn below(&self, class: &Class, path: &str) -> Vec<String> {
        let mut all = Vec::new();
        match self.at(class, path) {
            Some(Some(node)) => self.collect(node, format!("{path}."), &mut all),
            Some(None) => all.push(path.to_owned()),
            None => {}
        }
        all
    }

    /// The node that a path of a class in files leads to; none within where it ends a name.
    fn at(&self, class: &Class, path: &str) -> Option<Option<usize>> {
        path.split('.')
            .try_fold(Some(class.saved), |node, component| {
                let mut tokens = self.tokens(node?);
                tokens
                    .find(|(name, _)| *name == component)
                    .map(|(_, inner)| inner)
            })
    }

    /// Returns whether a class has a name of this form.
    pub fn has(&self, class: &Class, place: Place, form: &str) -> bool {
        let mut node = Some(class.root(place));
        let mut components = form.split('.').peekable();
        while let Some(component) = components.next() {
            let Some(line) = node.and_then(|node| self.nodes.get(node)) else {
                return false;
            };
            if components.peek().is_none() {
                return line.split(' ').any(|token| token == component);
            }
            let mut inner = line.split(' ').filter_map(|token| token.rsplit_once(':'));
            node = inner
                .find(|(name, _)| *name == component)
                .and_then(|(_, node)| node.parse().ok());
        }
        false
    }

    /// Which of some names a class has.
    pub fn known<'n>(
        &self,
        class: &Class,
        place: Place,
        names: impl IntoIterator<Item = &'n str>,
    ) -> Vec<bool> {
        let names = names.into_iter();
        names
            .map(|name| self.has(class, place, &form_of(name).0))
            .collect()
    }

    /// The tensors in memory that a class does not write.
    pub fn copied(&self, class: &Class) -> Vec<Copied> {
        let line = class.ties.and_then(|ties| self.ties.get(ties));
        line.map_or(Vec::new(), |line| {
            line.split(' ').filter_map(Copied::parse).collect()
        })
    }

    /// The table of a class that writes other tensors than it has in memory.
    ///
    /// # Errors
    /// When the table is damaged.
    pub fn conversion(&self, class: &Class) -> Result<Option<Conversion>> {
        let Some(name) = class.conversion else {
            return Ok(None);
        };
        let start = format!("\n@{name}\n");
        let lines = CONVERSIONS.split_once(&start).map_or("", |(_, rest)| rest);
        let text = spelled_out(lines.lines().take_while(|line| !line.starts_with('@')));
        let damaged = |reason: &str| Error::Mapping(format!("the table of {name}: {reason}"));
        let text = text.ok_or_else(|| damaged("a line lacks a field"))?;
        let conversion = toml::from_str(&text);
        conversion
            .map(Some)
            .map_err(|error| damaged(error.message()))
    }

    /// The names of a class in files that are nearest to one that it does not have.
    pub fn nearest(&self, class: &Class, name: &str) -> Vec<String> {
        let mut all = Vec::new();
        self.collect(class.saved, String::new(), &mut all);
        nearest(name, all.iter().map(String::as_str))
    }

    fn collect(&self, node: usize, prefix: String, all: &mut Vec<String>) {
        for (name, inner) in self.tokens(node) {
            if all.len() >= MOST_NAMES {
                return;
            }
            match inner {
                Some(inner) => self.collect(inner, format!("{prefix}{name}."), all),
                None => all.push(format!("{prefix}{name}")),
            }
        }
    }
}

fn has_below(forms: &BTreeSet<String>, path: &str) -> bool {
    let start = format!("{path}.");
    let next = forms.range(start.clone()..).next();
    next.is_some_and(|form| form.starts_with(&start))
}

/// A table in TOML, from lines in which each name tells only how it differs from the one before.
fn spelled_out<'l>(lines: impl Iterator<Item = &'l str>) -> Option<String> {
    let (mut starts, mut rules) = (String::new(), String::new());
    let mut source: Vec<&str> = Vec::new();
    for line in lines {
        let mut fields = line.split('\t');
        match fields.next()? {
            "^" => starts += &format!("[{:?}, {:?}],", fields.next()?, fields.next()?),
            "!" => rules += &format!("{{ {} }},", fields.next()?),
            shared => {
                source.truncate(shared.parse().ok()?);
                source.extend(fields.next()?.split('.').filter(|part| !part.is_empty()));
                let front = source.get(..fields.next()?.parse().ok()?)?;
                let middle = fields.next()?.split('.').filter(|part| !part.is_empty());
                let back = source.len().checked_sub(fields.next()?.parse().ok()?)?;
                let to: Vec<&str> = front
                    .iter()
                    .copied()
                    .chain(middle)
                    .chain(source.get(back..)?.iter().copied())
                    .collect();
                rules += &format!("{{ from = {:?}, to = {:?}", source.join("."), to.join("."));
                fields.for_each(|field| rules += &format!(", {field}"));
                rules += " },";
            }
        }
    }
    Some(format!(
        "[[family]]\nname = \"class\"\nmodel_types = []\nvariables = {{ expert = \"0\" }}\n[[system]]\nname = \"huggingface\"\nfamilies = [\"class\"]\nidentity = true\nstarts = [{starts}]\nrules = [{rules}]\n"
    ))
}

/// The few of `forms` that differ least from the form of `name`.
pub fn nearest<'f>(name: &str, forms: impl Iterator<Item = &'f str>) -> Vec<String> {
    let form = form_of(name).0;
    let mut all: Vec<(usize, &str)> = forms
        .map(|other| (strsim::levenshtein(&form, other), other))
        .collect();
    all.sort_unstable();
    all.dedup();
    all.into_iter()
        .take(NEAREST)
        .map(|(_, form)| form.replace("{}", "N"))
        .collect()
}

impl Class {
    fn parse(line: &'static str) -> Option<Self> {
        let mut fields = line.split(' ');
        let optional = |field: &'static str| Some(field).filter(|field| *field != "-");
        Some(Self {
            name: fields.next()?,
            model_type: fields.next()?,
            base: optional(fields.next()?).unwrap_or_default(),
            saved: fields.next()?.parse().ok()?,
            memory: fields.next()?.parse().ok()?,
            conversion: optional(fields.next()?),
            ties: optional(fields.next()?).and_then(|ties| ties.parse().ok()),
        })
    }

    fn root(&self, place: Place) -> usize {
        match place {
            Place::Files => self.saved,
            Place::Memory => self.memory,
        }
    }

    /// Returns whether the class writes its tensors as it has them in memory, but for copies.
    pub fn writes_as_is(&self) -> bool {
        self.conversion.is_none()
    }
}

impl Copied {
    fn parse(token: &'static str) -> Option<Self> {
        let (form, of, by_default) = match (token.split_once('='), token.split_once('~')) {
            (Some((form, of)), _) => (form, of, true),
            (None, Some((form, of))) => (form, of, false),
            (None, None) => return None,
        };
        let of = Some(of).filter(|of| *of != "-");
        Some(Self {
            form,
            of,
            by_default,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_is_parsed_and_every_conversion_reads() {
        let classes = Classes::load();
        let lines = NAMES
            .lines()
            .rev()
            .take_while(|line| *line != "[classes]")
            .count();
        assert_eq!(classes.classes.len(), lines);
        assert!(lines > 1000);
        for class in &classes.classes {
            let conversion = classes.conversion(class).unwrap();
            assert_eq!(
                conversion.is_some(),
                class.conversion.is_some(),
                "{}",
                class.name
            );
            let parts = conversion.as_ref().map(Conversion::parts);
            assert!(parts.is_none_or(|parts| parts.is_some()), "{}", class.name);
        }
    }

    #[test]
    fn names_are_known_by_their_forms_in_files_and_in_memory() {
        let classes = Classes::load();
        let bert = classes.class("BertForMaskedLM").unwrap();
        assert_eq!((bert.model_type, bert.base), ("bert", "bert"));
        let name = "bert.encoder.layer.11.attention.self.query.weight";
        assert_eq!(
            classes.known(bert, Place::Files, [name, "bert.encoder.layer.x"]),
            [true, false]
        );
        let llava = classes.class("LlavaForConditionalGeneration").unwrap();
        let (file, memory) = ("language_model.lm_head.weight", "lm_head.weight");
        assert_eq!(
            classes.known(llava, Place::Files, [file, memory]),
            [true, false]
        );
        assert_eq!(
            classes.known(llava, Place::Memory, [file, memory]),
            [false, true]
        );
    }

    #[test]
    fn the_nearest_names_are_told() {
        let classes = Classes::load();
        let bert = classes.class("BertModel").unwrap();
        let nearest = classes.nearest(bert, "encoder.layer.3.attention.self.quary.weight");
        assert_eq!(nearest[0], "encoder.layer.N.attention.self.query.weight");
        assert_eq!(nearest.len(), 3);
    }
}
