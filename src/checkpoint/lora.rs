//! LoRA trainings under PEFT's names: the base and the adapter apart.

use super::SourceTensor;

/// PEFT's prefix (peft 0.21.2, `base_model.model.` before the model's own names).
pub const PREFIX: &str = "base_model.model.";

/// Components that only an adapter's names have, each with PEFT's word for it: PEFT's own first, then those of torchtune
/// (0.6.1, modules/peft) and torchtitan (0.3.0, components/lora.py).
const PARTS: [(&str, &str); 8] = [
    ("lora_A", "lora_A"),
    ("lora_B", "lora_B"),
    ("lora_embedding_A", "lora_embedding_A"),
    ("lora_embedding_B", "lora_embedding_B"),
    (MAGNITUDE, MAGNITUDE),
    ("lora_a", "lora_A"),
    ("lora_b", "lora_B"),
    ("magnitude", MAGNITUDE),
];

/// Where PEFT keeps a module that is trained whole, and the one that the base has in its place.
const SAVED: &str = "modules_to_save";
const ORIGINAL: &str = "original_module";

/// A DoRA module's vector, which is a module in memory and a plain tensor in a file.
const MAGNITUDE: &str = "lora_magnitude_vector";

/// The tensors of the base under the model's own names, and those of the adapter. An adapter in PEFT's names comes out as
/// PEFT's files name it; in another system's names only the parts of its modules are PEFT's.
pub fn split(tensors: Vec<SourceTensor>) -> (Vec<SourceTensor>, Vec<SourceTensor>) {
    // `magnitude` alone may be any model's.
    let has_adapter = tensors
        .iter()
        .any(|tensor| part(&tensor.name).is_some_and(|(_, _, part)| part != MAGNITUDE));
    let (adapter, base): (Vec<_>, Vec<_>) = tensors
        .into_iter()
        .partition(|tensor| has_adapter && is_adapters(&tensor.name));
    let is_pefts = has_adapter || base.iter().all(|tensor| tensor.name.starts_with(PREFIX));
    let base = base.into_iter().map(|tensor| match is_pefts {
        true => {
            let name = base_name(&tensor.name);
            tensor.renamed(name)
        }
        false => tensor,
    });
    (
        base.collect(),
        adapter
            .into_iter()
            .map(|tensor| {
                let name = adapter_name(&tensor.name);
                tensor.renamed(name)
            })
            .collect(),
    )
}

/// A module that was trained whole, under the name that PEFT's files give it.
pub fn saved_whole(tensor: SourceTensor) -> SourceTensor {
    let name = format!("{PREFIX}{}", tensor.name);
    tensor.renamed(name)
}

/// Whether a name is one of PEFT's files.
pub fn is_pefts(name: &str) -> bool {
    name.starts_with(PREFIX)
}

fn is_adapters(name: &str) -> bool {
    part(name).is_some() || saved(name).is_some()
}

/// `lm_head` and `weight` of `lm_head.modules_to_save.default.weight`: between them stands the adapter's name in memory.
fn saved(name: &str) -> Option<(&str, &str)> {
    let (module, rest) = name.split_once(&format!(".{SAVED}."))?;
    Some((module, rest.split_once('.')?.1))
}

/// The module, its part, and PEFT's word for the part.
fn part(name: &str) -> Option<(&str, &'static str, &'static str)> {
    let mut start = 0;
    for component in name.as_bytes().split(|byte| *byte == b'.') {
        let is_it = |(own, _): &&(&str, &str)| own.as_bytes() == component;
        if let Some((own, pefts)) = PARTS.iter().find(is_it) {
            return Some((name.get(..start)?.trim_end_matches('.'), own, pefts));
        }
        start += component.len() + 1;
    }
    None
}

/// `base_model.model.q_proj.base_layer.weight` is the model's `q_proj.weight`.
fn base_name(name: &str) -> String {
    name.trim_start_matches(PREFIX)
        .split('.')
        .filter(|component| !["base_layer", ORIGINAL].contains(component))
        .collect::<Vec<_>>()
        .join(".")
}

/// `q_proj.lora_A.default.weight` is `q_proj.lora_A.weight` in a file: the adapter's name in memory goes.
fn adapter_name(name: &str) -> String {
    if let Some((module, end)) = saved(name) {
        return format!("{PREFIX}{}.{end}", module.trim_start_matches(PREFIX));
    }
    let Some((module, own, part)) = part(name) else {
        return name.to_owned();
    };
    let prefix = if own == part { PREFIX } else { "" };
    let module = module.trim_start_matches(PREFIX);
    match name.rsplit('.').next() {
        Some(end @ ("weight" | "bias")) if part != MAGNITUDE => {
            format!("{prefix}{module}.{part}.{end}")
        }
        _ => format!("{prefix}{module}.{part}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_out_as_peft_writes_them() {
        assert_eq!(
            base_name("base_model.model.a.q_proj.base_layer.weight"),
            "a.q_proj.weight"
        );
        assert_eq!(
            adapter_name("base_model.model.a.q_proj.lora_A.default.weight"),
            "base_model.model.a.q_proj.lora_A.weight"
        );
        assert_eq!(
            adapter_name("a.q_proj.lora_B.weight"),
            "base_model.model.a.q_proj.lora_B.weight"
        );
        assert_eq!(
            adapter_name("base_model.model.a.lora_magnitude_vector.default.weight"),
            "base_model.model.a.lora_magnitude_vector"
        );
        assert_eq!(
            base_name("base_model.model.lm_head.original_module.weight"),
            "lm_head.weight"
        );
        assert_eq!(
            adapter_name("base_model.model.lm_head.modules_to_save.default.weight"),
            "base_model.model.lm_head.weight"
        );
        assert_eq!(
            adapter_name("base_model.model.a.lora_embedding_A.default"),
            "base_model.model.a.lora_embedding_A"
        );
    }

    #[test]
    fn modules_keep_the_names_of_the_system_that_trained_them() {
        assert_eq!(
            adapter_name("layers.0.attn.q_proj.lora_a.weight"),
            "layers.0.attn.q_proj.lora_A.weight"
        );
        assert_eq!(
            adapter_name("layers.0.attn.q_proj.magnitude"),
            "layers.0.attn.q_proj.lora_magnitude_vector"
        );
    }

    #[test]
    fn a_magnitude_without_an_adapter_is_the_models_own() {
        let tensor = |name: &str| SourceTensor::new(name, Vec::new());
        let (base, adapter) = split(vec![tensor("a.magnitude"), tensor("a.weight")]);
        assert_eq!((base.len(), adapter.len()), (2, 0));
        let (base, adapter) = split(vec![tensor("a.magnitude"), tensor("a.lora_a.weight")]);
        assert_eq!((base.len(), adapter.len()), (0, 2));
    }
}
