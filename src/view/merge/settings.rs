//! adapter_config.json: the settings that scale an update, and those that are refused.

use regex_lite::Regex;
use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// Initialisations that leave the base as it is.
const INITS: [&str; 3] = ["gaussian", "eva", "orthogonal"];

/// Settings that change what an adapter computes, with the name of each.
const REFUSED: [(&str, &str); 10] = [
    ("enable_lora", "the merged linear layers of PEFT 0.2"),
    ("alora_invocation_tokens", "aLoRA"),
    ("use_qalora", "QALoRA"),
    ("velora_config", "VeLoRA"),
    ("monteclora_config", "MonteCLoRA"),
    ("kasa_config", "KaSA"),
    ("use_bdlora", "BD-LoRA"),
    ("arrow_config", "arrow"),
    ("layer_replication", "layer_replication"),
    ("loftq_config", "LoftQ"),
];

/// Other settings of variants that are known and harmless.
const KNOWN: [&str; 8] = [
    "use_rslora",
    "use_dora",
    "use_qalora",
    "use_bdlora",
    "eva_config",
    "corda_config",
    "lora_ga_config",
    "megatron_config",
];

pub struct Settings {
    alpha: f64,
    alphas: Vec<(Regex, f64)>,
    is_rank_stabilised: bool,
    weight: f64,
    is_dora: bool,
    pub fan_in_fan_out: bool,
    parameters: Vec<String>,
    saved: Vec<String>,
    tokens: Option<Value>,
}

fn is_set(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Object(map) => !map.is_empty(),
        Value::Array(list) => !list.is_empty(),
        _ => true,
    }
}

fn refuse<T>(found: &str) -> Result<T> {
    Err(Error::Mapping(format!(
        "adapter_config.json: {found}, which is not merged; merge it with PEFT"
    )))
}

impl Settings {
    pub fn of(config: &Map<String, Value>, weight: f64) -> Result<Self> {
        check(config)?;
        let number = |key: &str| config.get(key).and_then(Value::as_f64);
        let Some(alpha) = number("lora_alpha") else {
            return refuse("has no lora_alpha");
        };
        let names = |key: &str| -> Vec<String> {
            let list = config.get(key).and_then(Value::as_array);
            let list = list.into_iter().flatten().filter_map(Value::as_str);
            list.map(str::to_owned).collect()
        };
        let is = |key: &str| config.get(key) == Some(&Value::Bool(true));
        Ok(Self {
            alpha,
            alphas: patterns(config, "alpha_pattern")?,
            is_rank_stabilised: is("use_rslora"),
            weight,
            is_dora: is("use_dora"),
            fan_in_fan_out: is("fan_in_fan_out"),
            parameters: names("target_parameters"),
            saved: names("modules_to_save"),
            tokens: config
                .get("trainable_token_indices")
                .filter(|value| is_set(value))
                .cloned(),
        })
    }

    /// The factor of a module's update of this rank.
    pub fn scale(&self, module: &str, rank: u64) -> Result<f32> {
        let own = self
            .alphas
            .iter()
            .find(|(pattern, _)| pattern.is_match(module));
        let alpha = own.map_or(self.alpha, |(_, alpha)| *alpha);
        let rank = match (rank, self.is_rank_stabilised) {
            (0, _) => return refuse(&format!("{module} has rank 0")),
            (rank, true) => (rank as f64).sqrt(),
            (rank, false) => rank as f64,
        };
        Ok((alpha / rank * self.weight) as f32)
    }

    pub fn check_dora(&self, module: &str, has_magnitude: bool) -> Result<()> {
        match has_magnitude || !self.is_dora {
            true => Ok(()),
            false => refuse(&format!("use_dora is true, but {module} has no magnitude")),
        }
    }

    /// Whether a whole tensor of a module is one of `modules_to_save`.
    pub fn saves(&self, module: &str) -> bool {
        let mut saved = self.saved.iter();
        saved.any(|saved| is_or_ends_in(module, saved))
    }

    /// Whether parameters of a module are adapted by themselves.
    pub fn has_parameters_of(&self, module: &str) -> bool {
        let targets = self.parameters.iter();
        let mut modules = targets.filter_map(|target| Some(target.rsplit_once('.')?.0));
        modules.any(|target| is_or_ends_in(module, target))
    }

    /// Whether a parameter is adapted by itself.
    pub fn adapts(&self, parameter: &str) -> bool {
        let mut targets = self.parameters.iter();
        targets.any(|target| is_or_ends_in(parameter, target))
    }

    /// The rows that trained tokens replace, in a module.
    pub fn tokens_of(&self, module: &str) -> Option<Vec<u64>> {
        let list = match self.tokens.as_ref()? {
            Value::Object(modules) => {
                let mut modules = modules.iter();
                let (_, list) = modules.find(|(name, _)| is_or_ends_in(module, name))?;
                list
            }
            list => list,
        };
        list.as_array()?.iter().map(Value::as_u64).collect()
    }
}

/// Whether a dotted name is `end`, or has it as its last components.
fn is_or_ends_in(name: &str, end: &str) -> bool {
    let rest = name.strip_suffix(end);
    rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

fn check(config: &Map<String, Value>) -> Result<()> {
    if let Some(kind) = config.get("peft_type").and_then(Value::as_str)
        && kind != "LORA"
    {
        return refuse(&format!("peft_type is {kind}"));
    }
    let init = config.get("init_lora_weights");
    match init {
        None | Some(Value::Null | Value::Bool(_)) => {}
        Some(Value::String(init)) if INITS.contains(&init.as_str()) => {}
        Some(other) => return refuse(&format!("init_lora_weights is {other}")),
    }
    for (key, name) in REFUSED {
        if config.get(key).is_some_and(is_set) {
            return refuse(&format!("{key} is set ({name})"));
        }
    }
    let unknown = config.iter().find(|(key, value)| {
        let is_variant = key.starts_with("use_") || key.ends_with("_config");
        is_variant && is_set(value) && !KNOWN.contains(&key.as_str())
    });
    match unknown {
        Some((key, value)) => refuse(&format!("{key} is {value}")),
        None => Ok(()),
    }
}

/// Patterns of module names, and a number for each.
fn patterns(config: &Map<String, Value>, key: &str) -> Result<Vec<(Regex, f64)>> {
    let patterns = config.get(key).and_then(Value::as_object);
    let pattern = |(pattern, value): (&String, &Value)| {
        let compiled = Regex::new(&format!("^(.*\\.)?({pattern})$")).ok();
        match (compiled, value.as_f64()) {
            (Some(compiled), Some(value)) => Ok((compiled, value)),
            _ => refuse(&format!("{key} has {pattern:?}: {value}")),
        }
    };
    patterns.into_iter().flatten().map(pattern).collect()
}
