//! params.json of Meta and of Lingua, out of a config.json: the inverse of the `[[config]]` tables.

use serde_json::{Map, Value, json};

use crate::mapping::Config;
use crate::tensor::Dtype;

pub const NAME: &str = "params.json";

/// The base that a model assumes where config.json names none of its rotary embedding (transformers 5.23.0).
const ROPE_THETA: f64 = 10000.0;

/// A params.json.
#[derive(Debug)]
pub struct Params {
    pub values: Map<String, Value>,
    /// The parts that it cannot say.
    pub note: Option<String>,
}

/// Meta's: the arguments of its Transformer. Mistral's where the model is one of theirs.
pub fn meta(config: &Config) -> Result<Params, String> {
    let sizes = Sizes::of(config)?;
    let mut values = sizes.values();
    let is_mistral = matches!(config.model_type(), Some("mistral" | "mixtral"));
    if is_mistral || sizes.head_dim * sizes.heads != sizes.dim {
        values.insert("head_dim".to_owned(), sizes.head_dim.into());
    }
    if is_mistral {
        values.insert("hidden_dim".to_owned(), sizes.hidden.into());
        copy(config, "sliding_window", "sliding_window", &mut values);
        copy(
            config,
            "max_position_embeddings",
            "max_seq_len",
            &mut values,
        );
    } else {
        values.insert("multiple_of".to_owned(), sizes.multiple_of.into());
        if let Some(multiplier) = sizes.multiplier {
            values.insert("ffn_dim_multiplier".to_owned(), multiplier.into());
        }
    }
    if config.model_type() == Some("mixtral") {
        let mut experts = Map::new();
        copy(config, "num_local_experts", "num_experts", &mut experts);
        copy(
            config,
            "num_experts_per_tok",
            "num_experts_per_tok",
            &mut experts,
        );
        values.insert("moe".to_owned(), experts.into());
    }
    let note = match scaling(config) {
        None => None,
        Some("llama3") => {
            values.insert("use_scaled_rope".to_owned(), true.into());
            None
        }
        Some(other) => Some(unscaled(other, "Meta's")),
    };
    Ok(Params { values, note })
}

/// Lingua's: the sections that its generate and eval read.
pub fn lingua(config: &Config, dtype: Dtype) -> Result<Params, String> {
    let sizes = Sizes::of(config)?;
    let mut model = sizes.values();
    model.insert("head_dim".to_owned(), sizes.head_dim.into());
    model.insert("ffn_dim_multiplier".to_owned(), sizes.multiplier.into());
    model.insert("multiple_of".to_owned(), sizes.multiple_of.into());
    model.insert("init_base_std".to_owned(), Value::Null);
    model.insert("init_std_factor".to_owned(), "disabled".into());
    copy(config, "max_position_embeddings", "max_seqlen", &mut model);
    model.insert("seed".to_owned(), 42.into());
    let tied = config.get("tie_word_embeddings").and_then(Value::as_bool);
    model.insert("weight_tying".to_owned(), tied.unwrap_or(false).into());
    let window = config.get("sliding_window").cloned();
    model.insert("sliding_window".to_owned(), window.unwrap_or(Value::Null));
    let dtype = match dtype {
        Dtype::F32 => "fp32",
        Dtype::F16 => "fp16",
        Dtype::BF16 => "bf16",
        other => return Err(format!("Lingua has no model of type {other}")),
    };
    let values = json!({
        "model": model,
        "distributed": {"model_dtype": dtype},
        "data": {"tokenizer": {"name": "bytes", "path": null}},
    });
    let Value::Object(values) = values else {
        return Err("no object".to_owned());
    };
    let note = scaling(config).map(|kind| unscaled(kind, "Lingua's"));
    Ok(Params { values, note })
}

fn unscaled(kind: &str, whose: &str) -> String {
    format!(
        "config.json scales rotary embeddings by {kind}, which {whose} params.json cannot say: its own code computes them without"
    )
}

/// The kind of scaling of the rotary embedding, where there is one.
fn scaling(config: &Config) -> Option<&str> {
    let said = config
        .get("rope_scaling")
        .or(config.get("rope_parameters"))?;
    let kind = said.get("rope_type").or(said.get("type"))?.as_str()?;
    Some(kind).filter(|kind| *kind != "default")
}

fn copy(config: &Config, from: &str, to: &str, values: &mut Map<String, Value>) {
    if let Some(value) = config.get(from) {
        values.insert(to.to_owned(), value.clone());
    }
}

/// Keys in which both say the model's sizes.
struct Sizes<'a> {
    config: &'a Config,
    dim: u64,
    heads: u64,
    head_dim: u64,
    hidden: u64,
    multiple_of: u64,
    multiplier: Option<f64>,
}

impl<'a> Sizes<'a> {
    fn of(config: &'a Config) -> Result<Self, String> {
        let number = |key: &str| {
            let value = config.get(key).and_then(Value::as_u64);
            value
                .filter(|value| (1..1 << 40).contains(value))
                .ok_or_else(|| format!("config.json has no {key}"))
        };
        let (dim, heads) = (number("hidden_size")?, number("num_attention_heads")?);
        let hidden = number("intermediate_size")?;
        let (multiplier, multiple_of) = feed_forward(dim, hidden)?;
        Ok(Self {
            config,
            dim,
            heads,
            head_dim: number("head_dim").unwrap_or(dim / heads),
            hidden,
            multiple_of,
            multiplier,
        })
    }

    fn values(&self) -> Map<String, Value> {
        let mut values = Map::new();
        values.insert("dim".to_owned(), self.dim.into());
        copy(self.config, "num_hidden_layers", "n_layers", &mut values);
        values.insert("n_heads".to_owned(), self.heads.into());
        let kv_heads = self.config.get("num_key_value_heads").cloned();
        values.insert(
            "n_kv_heads".to_owned(),
            kv_heads.unwrap_or(self.heads.into()),
        );
        copy(self.config, "vocab_size", "vocab_size", &mut values);
        copy(self.config, "rms_norm_eps", "norm_eps", &mut values);
        values.insert("rope_theta".to_owned(), theta(self.config));
        values
    }
}

fn theta(config: &Config) -> Value {
    let inner = config.get("rope_parameters");
    let inner = inner.and_then(|parameters| parameters.get("rope_theta"));
    let said = config.get("rope_theta").or(inner).cloned();
    said.unwrap_or(ROPE_THETA.into())
}

/// `ffn_dim_multiplier` and `multiple_of` with which the rounding of Meta and Lingua gives `hidden`.
fn feed_forward(dim: u64, hidden: u64) -> Result<(Option<f64>, u64), String> {
    let base = (2.0 * (4 * dim) as f64 / 3.0) as u64;
    let multiple_of = 1 << hidden.trailing_zeros().min(8);
    let rounded = |size: u64| size.div_ceil(multiple_of) * multiple_of;
    if rounded(base) == hidden {
        return Ok((None, multiple_of));
    }
    let middle = hidden.saturating_sub((multiple_of - 1) / 2);
    let multiplier = (middle as f64 + 0.5) / base as f64;
    match rounded((multiplier * base as f64) as u64) == hidden {
        true => Ok((Some(multiplier), multiple_of)),
        false => Err(format!(
            "no ffn_dim_multiplier gives an intermediate_size of {hidden}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(value: Value) -> Config {
        let Value::Object(values) = value else {
            panic!("{value}")
        };
        Config::new(values)
    }

    #[test]
    fn the_rounding_gives_every_size_back() {
        for dim in [64, 96, 512, 2048, 3072, 4096, 5120, 8192, 16384] {
            let known = [
                11008, 13824, 14336, 28672, 53248, 17920, 8192, 3072, 22016, 160, 136,
            ];
            for hidden in (8..4000).step_by(97).chain(known) {
                feed_forward(dim, hidden).unwrap();
            }
        }
        assert_eq!(feed_forward(4096, 11008).unwrap(), (None, 256));
        assert_eq!(
            feed_forward(64, 160).unwrap(),
            (Some(0.855_882_352_941_176_4), 32)
        );
    }

    #[test]
    fn what_params_cannot_say_is_told() {
        let scaled = |kind: &str| {
            config(json!({
                "model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2,
                "intermediate_size": 160, "vocab_size": 512, "rms_norm_eps": 1e-5,
                "rope_parameters": {"rope_type": kind, "rope_theta": 500000.0},
            }))
        };
        let plain = meta(&scaled("default")).unwrap();
        assert!(plain.note.is_none() && !plain.values.contains_key("use_scaled_rope"));
        assert_eq!(plain.values["rope_theta"], 500000.0);
        assert_eq!(plain.values["n_kv_heads"], 4);
        let llama3 = meta(&scaled("llama3")).unwrap();
        assert!(llama3.note.is_none());
        assert_eq!(llama3.values["use_scaled_rope"], true);
        assert!(meta(&scaled("yarn")).unwrap().note.is_some());
        assert!(
            lingua(&scaled("llama3"), Dtype::BF16)
                .unwrap()
                .note
                .is_some()
        );
        assert!(lingua(&scaled("default"), Dtype::I8).is_err());
    }
}
