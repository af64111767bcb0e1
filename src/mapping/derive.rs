//! A config.json made from a `params.json`, where that says enough, by `[[config]]` tables.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::apply::MappedTensor;
use super::config::{Config, ConfigScope};
use super::expression::{Expression, Scope};
use super::pattern::Bindings;
use crate::error::{Error, Result};

/// How one system's params become a config.json.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Derivation {
    pub family: String,
    /// Keys that params.json must have for this table to apply.
    pub needs: Vec<String>,
    /// Values that the system assumes where params.json is silent.
    #[serde(default)]
    pub defaults: BTreeMap<String, Expression>,
    pub fields: Vec<Field>,
}

/// `[key, value]` or `[key, value, condition]`. Of several entries for a key the first whose condition holds counts.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Vec<String>")]
pub struct Field {
    key: String,
    value: FieldValue,
    condition: Option<Expression>,
}

#[derive(Debug)]
enum FieldValue {
    /// `= n_heads`: a number, computed.
    Computed(Expression),
    /// `? is_tied`: a truth value, computed.
    Truth(Expression),
    /// `$ norm_eps`, `$ moe.num_experts`: taken over with its type; left out where it is missing.
    Copied(String),
    /// `@ model.embed_tokens.weight 0`: the size of a tensor.
    Size(String, usize),
    /// Anything else is JSON.
    Constant(Value),
}

impl TryFrom<Vec<String>> for Field {
    type Error = String;

    fn try_from(fields: Vec<String>) -> std::result::Result<Self, String> {
        let (key, value, condition) = match &*fields {
            [key, value] => (key, value, None),
            [key, value, condition] => (key, value, Some(condition.parse()?)),
            _ => return Err(format!("{fields:?} is no key, value and condition")),
        };
        let value = match value.split_at_checked(2) {
            Some(("= ", text)) => FieldValue::Computed(text.parse()?),
            Some(("? ", text)) => FieldValue::Truth(text.parse()?),
            Some(("$ ", name)) => FieldValue::Copied(name.to_owned()),
            Some(("@ ", place)) => {
                size(place).ok_or_else(|| format!("{value:?} names no dimension"))?
            }
            _ => FieldValue::Constant(
                serde_json::from_str(value).map_err(|error| error.to_string())?,
            ),
        };
        Ok(Self {
            key: key.clone(),
            value,
            condition,
        })
    }
}

fn size(place: &str) -> Option<FieldValue> {
    let (tensor, dim) = place.split_once(' ')?;
    Some(FieldValue::Size(tensor.to_owned(), dim.parse().ok()?))
}

impl Derivation {
    /// Whether the table speaks of these params.
    pub fn applies(&self, params: &Map<String, Value>) -> bool {
        self.needs.iter().all(|key| params.contains_key(key))
    }

    /// The config.json, sizes of `tensors` included. Before any tensor is known these are left out.
    pub fn config(
        &self,
        params: &Map<String, Value>,
        tensors: &[MappedTensor],
        tied: bool,
    ) -> Result<Map<String, Value>> {
        self.made(self.fields.iter(), params, tensors, tied)
    }

    /// Returns the values of `params` themselves, without those that the system assumes.
    pub fn declared(&self, params: &Map<String, Value>) -> Result<Map<String, Value>> {
        let is_constant = |field: &&Field| matches!(field.value, FieldValue::Constant(_));
        let fields = self.fields.iter().filter(|field| !is_constant(field));
        self.made(fields, params, &[], false)
    }

    fn made<'a>(
        &self,
        fields: impl Iterator<Item = &'a Field>,
        params: &Map<String, Value>,
        tensors: &[MappedTensor],
        tied: bool,
    ) -> Result<Map<String, Value>> {
        let mut params = Config::new(params.clone());
        params.set("is_tied", tied.into());
        let scope = ConfigScope {
            config: &params,
            defaults: &self.defaults,
            bindings: Bindings::new(),
        };
        let mut config = Map::new();
        for field in fields {
            let known = config.contains_key(&field.key);
            let wrong =
                |reason| Error::Mapping(format!("params.json, for {}: {reason}", field.key));
            let holds = match &field.condition {
                Some(condition) if !known => condition.holds(&scope).map_err(wrong)?,
                _ => !known,
            };
            if holds && let Some(value) = field.value(&params, &scope, tensors).map_err(wrong)? {
                config.insert(field.key.clone(), value);
            }
        }
        Ok(config)
    }
}

impl Field {
    fn value(
        &self,
        params: &Config,
        scope: &dyn Scope,
        tensors: &[MappedTensor],
    ) -> std::result::Result<Option<Value>, String> {
        match &self.value {
            FieldValue::Constant(value) => Ok(Some(value.clone())),
            FieldValue::Copied(path) => {
                let (name, inner) = path
                    .split_once('.')
                    .map_or((&**path, None), |(name, inner)| (name, Some(inner)));
                let value = params.get(name);
                Ok(inner.map_or(value, |inner| value?.get(inner)).cloned())
            }
            FieldValue::Computed(expression) => {
                expression.evaluate(scope).map(|number| Some(number.into()))
            }
            FieldValue::Truth(expression) => {
                expression.holds(scope).map(|truth| Some(truth.into()))
            }
            FieldValue::Size(name, dim) => {
                let tensor = tensors.iter().find(|tensor| *tensor.name == **name);
                let size = tensor.and_then(|tensor| tensor.tensor.shape().dims().get(*dim));
                Ok(size.map(|size| (*size).into()))
            }
        }
    }
}
