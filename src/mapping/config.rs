//! The values of config.json, as the numbers that tables compute with.

use std::cell::Cell;
use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::expression::{Expression, Scope};
use super::pattern::Bindings;

/// A config.json, with the values that flags state in its place.
#[derive(Debug, Clone, Default)]
pub struct Config {
    root: Map<String, Value>,
    /// The heads that the tensors have.
    seen: Heads,
}

/// The heads that a model may end in.
#[derive(Debug, Clone, Copy, Default)]
struct Heads {
    of_language: bool,
    of_classes: bool,
}

/// The kind of a class of transformers, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Base,
    Classifier,
    LanguageModel,
    /// No class of transformers: its tensors tell what it ends in.
    Unknown,
}

impl Config {
    pub fn new(root: Map<String, Value>) -> Self {
        let seen = Heads::default();
        Self { root, seen }
    }

    /// Notes which heads there are among the names of a model's tensors, whose language model's head is called `head`: a
    /// class that transformers does not know decides nothing about them.
    pub fn see_heads<'n>(&mut self, head: &str, names: impl Iterator<Item = &'n str>) {
        for name in names {
            self.seen.of_language |= name == head;
            self.seen.of_classes |= name == CLASSIFIER;
        }
    }

    /// Sets what a flag states. Where the text model has a section of its own, it goes there.
    pub fn set(&mut self, key: &str, value: Value) {
        match self
            .root
            .get_mut("text_config")
            .and_then(Value::as_object_mut)
        {
            Some(text) => text.insert(key.to_owned(), value),
            None => self.root.insert(key.to_owned(), value),
        };
    }

    /// Replaces what the root or the text section says, where one says something else. Whether anything changed.
    pub fn replace(&mut self, key: &str, value: Value) -> bool {
        let mut changed = false;
        if let Some(own) = self.root.get_mut(key).filter(|own| **own != value) {
            *own = value.clone();
            changed = true;
        }
        let text = self
            .root
            .get_mut("text_config")
            .and_then(|text| text.get_mut(key));
        if let Some(own) = text.filter(|own| **own != value) {
            *own = value;
            changed = true;
        }
        changed
    }

    /// Sets what the whole model has.
    pub fn set_root(&mut self, key: &str, value: Value) {
        self.root.insert(key.to_owned(), value);
    }

    /// Removes keys of the root and of the text section. Whether there were any.
    pub fn remove(&mut self, keys: &[&str]) -> bool {
        let before = self.root.clone();
        self.root.retain(|key, _| !keys.contains(&&**key));
        let text = self.root.get_mut("text_config");
        if let Some(text) = text.and_then(Value::as_object_mut) {
            text.retain(|key, _| !keys.contains(&&**key));
        }
        self.root != before
    }

    pub fn json(&self) -> &Map<String, Value> {
        &self.root
    }

    /// A value of the model, or of its text part where config.json has several; behind `vision_`, of its vision part.
    pub fn get(&self, key: &str) -> Option<&Value> {
        let part = |name: &str| self.root.get(name);
        let text = || part("text_config").and_then(|text| text.get(key));
        let seen = || part("vision_config")?.get(key.strip_prefix("vision_")?);
        let value = self.root.get(key).or_else(text).or_else(seen);
        value.filter(|value| !value.is_null())
    }

    pub fn model_type(&self) -> Option<&str> {
        self.root.get("model_type")?.as_str()
    }

    pub fn is_quantized(&self) -> bool {
        self.quantization().is_some()
    }

    /// The description of quantized weights.
    pub fn quantization(&self) -> Option<&Value> {
        let own = self.get("quantization_config");
        own.or_else(|| self.get("compression_config"))
    }

    /// Whether the model ends in a classifier (`ForTokenClassification`, `ForSequenceClassification`) instead of a
    /// language model's head.
    pub fn is_classifier(&self) -> bool {
        match self.class() {
            Some(Class::Unknown) | None => self.seen.of_classes,
            Some(class) => class == Class::Classifier,
        }
    }

    /// Whether the model is what others put their heads on, such as `LlamaModel`. Its names lack the prefix `model.`.
    pub fn is_base(&self) -> bool {
        self.class() == Some(Class::Base)
    }

    /// Whether the model ends in a language model's head.
    pub fn has_head(&self) -> bool {
        match self.class() {
            Some(Class::Unknown) => self.seen.of_language,
            _ => !self.is_classifier() && !self.is_base(),
        }
    }

    /// Returns the kind of the class that config.json names, if it names one.
    fn class(&self) -> Option<Class> {
        let name = self.architecture()?;
        Some(match name.split_once("For") {
            Some((_, head)) if head.ends_with("Classification") => Class::Classifier,
            Some((_, head)) if LANGUAGE_MODELS.contains(&head) => Class::LanguageModel,
            None if name
                .strip_suffix("Model")
                .is_some_and(|stem| self.is_own(stem)) =>
            {
                Class::Base
            }
            _ => Class::Unknown,
        })
    }

    /// Whether the name of a class begins as `model_type` says: `Qwen2Moe` for `qwen2_moe`.
    fn is_own(&self, stem: &str) -> bool {
        let letters = |name: &str| name.replace('_', "").to_lowercase();
        let model_type = self.model_type().unwrap_or_default();
        let own = letters(model_type.strip_suffix("_text").unwrap_or(model_type));
        !stem.is_empty() && (own.is_empty() || letters(stem).starts_with(&own))
    }

    /// The model class, if config.json says.
    pub fn architecture(&self) -> Option<&str> {
        self.root.get("architectures")?.get(0)?.as_str()
    }
}

/// The head of a classifier.
const CLASSIFIER: &str = "score.weight";

/// Words that follow `For` in the names of transformers' classes of models that end in a language model's head, or in one of
/// their own that tables list.
const LANGUAGE_MODELS: [&str; 5] = [
    "CausalLM",
    "ConditionalGeneration",
    "MaskedLM",
    "QuestionAnswering",
    "MultimodalLM",
];

/// Lists of layers, and what `layer_types` calls those that are in them.
const LAYER_TYPES: [(&str, &str); 2] = [
    ("full_attention_layers", "full_attention"),
    ("linear_attention_layers", "linear_attention"),
];

/// Most numbers of a list, which is gone through for each tensor.
const MOST_LISTED: usize = 2048;

/// Most defaults that together stand in for one value. They may speak of each other, even in a circle: Lingua gives one of
/// two numbers that each tell the other.
const MOST_DEFAULTS: usize = 32;

/// Values by name: variables of a pattern, then config.json, then a family's defaults.
pub struct ConfigScope<'a> {
    pub config: &'a Config,
    pub defaults: &'a BTreeMap<String, Expression>,
    pub bindings: Bindings,
}

/// The same, where only `left` more defaults may be looked at.
struct Limited<'a> {
    scope: &'a ConfigScope<'a>,
    left: &'a Cell<usize>,
}

/// The hint for a config.json that says nothing sensible.
pub const OTHER: &str = "give the right config.json with --config-from";

impl ConfigScope<'_> {
    /// An expression and its value, behind which stand the keys of config.json that it is made of.
    pub fn told(&self, expression: &Expression, value: u64) -> String {
        match (expression.as_name(), self.keys(expression)) {
            (None, keys) if !keys.is_empty() => format!("{expression} is {value} ({keys})"),
            _ => format!("{expression} is {value}"),
        }
    }

    /// The keys of config.json that an expression speaks of, with their values.
    pub fn keys(&self, expression: &Expression) -> String {
        let mut keys: Vec<String> = Vec::new();
        let mut names = expression.names();
        let mut left = MOST_DEFAULTS;
        while let Some(name) = names.pop() {
            match (self.config.get(name), self.defaults.get(name)) {
                (Some(value), _) if number(value).is_some() => keys.push(format!("{name} {value}")),
                (None, Some(default)) if left > 0 => names.extend(default.names()),
                _ => {}
            }
            left = left.saturating_sub(1);
        }
        keys.sort();
        keys.dedup();
        keys.join(", ")
    }

    /// The layers that `layer_types` says are of this kind.
    fn layers_of(&self, kind: &str) -> Result<Vec<i64>, String> {
        let types = self.config.get("layer_types").and_then(Value::as_array);
        let Some(types) = types.filter(|types| types.len() <= MOST_LISTED) else {
            return Err(format!("config.json has no layer_types; {OTHER}"));
        };
        let layers = (0..).zip(types).filter(|(_, own)| *own == kind);
        Ok(layers.map(|(layer, _)| layer).collect())
    }

    fn look_up(&self, name: &str, left: &Cell<usize>) -> Result<i64, String> {
        if let Some(number) = self.bindings.get(name) {
            return i64::try_from(*number).map_err(|_| format!("{name} is {number}; {OTHER}"));
        }
        match (self.config.get(name), self.defaults.get(name)) {
            _ if name == "is_classifier" => Ok(self.config.is_classifier().into()),
            _ if name == "has_head" => Ok(self.config.has_head().into()),
            (Some(value), _) => {
                let refuse = || format!("config.json: {name} is {value}, not a number; {OTHER}");
                number(value).ok_or_else(refuse)
            }
            (None, Some(default)) => match left.get().checked_sub(1) {
                Some(rest) => {
                    left.set(rest);
                    default.evaluate(&Limited { scope: self, left })
                }
                None => Err(format!(
                    "{name} is missing, and so is what could tell it; {OTHER}"
                )),
            },
            (None, None) if name == "num_attention_heads" => {
                Err("config.json has no num_attention_heads: pass --heads N".to_owned())
            }
            (None, None) => Err(format!("config.json has no {name}; {OTHER}")),
        }
    }
}

impl Scope for Limited<'_> {
    fn number(&self, name: &str) -> Result<i64, String> {
        self.scope.look_up(name, self.left)
    }

    fn list(&self, name: &str) -> Result<Vec<i64>, String> {
        self.scope.list(name)
    }
}

impl Scope for ConfigScope<'_> {
    fn number(&self, name: &str) -> Result<i64, String> {
        self.look_up(name, &Cell::new(MOST_DEFAULTS))
    }

    fn list(&self, name: &str) -> Result<Vec<i64>, String> {
        if let Some((_, kind)) = LAYER_TYPES.iter().find(|(list, _)| *list == name) {
            return self.layers_of(kind);
        }
        let Some(value) = self.config.get(name) else {
            return Ok(Vec::new());
        };
        let items = value.as_array();
        if let Some(items) = items.filter(|items| items.len() > MOST_LISTED) {
            let count = items.len();
            return Err(format!(
                "config.json: {name} lists {count} numbers, more than a model has layers; {OTHER}"
            ));
        }
        let numbers = items.and_then(|items| items.iter().map(number).collect());
        let refuse = || format!("config.json: {name} is {value}, not a list of numbers; {OTHER}");
        numbers.ok_or_else(refuse)
    }
}

/// Whole numbers, also where they are written as floats, and truth values.
fn number(value: &Value) -> Option<i64> {
    let whole = |float: f64| (float.fract() == 0.0 && float.abs() < 1e15).then_some(float as i64);
    value
        .as_i64()
        .or_else(|| value.as_bool().map(i64::from))
        .or_else(|| value.as_f64().and_then(whole))
}
