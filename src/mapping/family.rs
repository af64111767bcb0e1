//! The table of a model family: its tensors under Hugging Face's names.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::expression::Expression;
use super::pattern::{Names, Pattern};
use super::table::Drop;
use super::template::Template;

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
    /// Values that the model class assumes where config.json is silent.
    #[serde(default)]
    pub defaults: BTreeMap<String, Expression>,
    /// In the order in which `save_pretrained` writes them. Where none is listed every name passes.
    #[serde(default)]
    pub tensors: Vec<FamilyTensor>,
    /// Where this holds a tensor may be missing: layers that transformers neither loads nor writes.
    pub optional: Option<Expression>,
    /// A tensor without which such layers are none of these.
    pub mark: Option<Template>,
    /// Beginnings of names that are taken as they are: towers of a multimodal model.
    #[serde(default)]
    pub pass: Vec<String>,
    /// The output head, which a tied model has not.
    #[serde(default = "lm_head")]
    pub head: String,
    /// The weight to which the output head is tied.
    #[serde(default = "embed_tokens")]
    pub embedding: String,
    /// Buffers that old versions saved and no reader wants.
    #[serde(default)]
    pub drop: Vec<Drop>,
    /// Tensors that a cast leaves in f32.
    #[serde(default)]
    pub keep_f32: Vec<Names>,
    /// Tensors of a layer that transformers keeps in one and so never saves in two shards.
    #[serde(default)]
    pub fused: Vec<Names>,
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

impl Family {
    /// Whether a cast leaves the tensor in f32.
    pub fn stays_f32(&self, name: &str) -> bool {
        self.keep_f32.iter().any(|names| names.matches(name))
    }

    /// Whether the tensor is no parameter.
    pub fn is_buffer(&self, name: &str) -> bool {
        self.buffers.iter().any(|names| names.matches(name))
    }

    /// Whether `model_type` of config.json is one of the family's.
    pub fn is(&self, model_type: &str) -> bool {
        self.name == model_type || self.model_types.iter().any(|each| each == model_type)
    }

    /// Whether the table says what a model consists of.
    pub fn is_listed(&self) -> bool {
        !self.tensors.is_empty()
    }

    /// Whether a name belongs to a part that the table does not list.
    pub fn passes(&self, name: &str) -> bool {
        !self.is_listed() || self.pass.iter().any(|prefix| name.starts_with(&**prefix))
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

impl FamilyTensor {
    /// Where a model has it, unless that is everywhere.
    pub fn condition(&self) -> Option<&Expression> {
        match &self.presence {
            Presence::When(condition) => Some(condition),
            Presence::Always | Presence::Optional => None,
        }
    }

    /// The expressions behind the shape, such as `vocab_size,hidden_size`.
    pub fn meaning(&self) -> String {
        let size =
            |size: &Option<Expression>| size.as_ref().map_or("_".to_owned(), ToString::to_string);
        self.shape.iter().map(size).collect::<Vec<_>>().join(",")
    }
}

#[derive(Debug)]
pub enum Presence {
    Always,
    When(Expression),
    Optional,
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
