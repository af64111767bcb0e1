//! LoRA trainings under PEFT's names: the base and the adapter apart.

use super::SourceTensor;

/// PEFT's prefix (peft 0.21.2, `base_model.model.` before the model's own names).
const PREFIX: &str = "base_model.model.";

/// Components that only an adapter's names have.
const ADAPTER: [&str; 5] = [
    "lora_A",
    "lora_B",
    "lora_embedding_A",
    "lora_embedding_B",
    "lora_magnitude_vector",
];

/// The tensors of the base under the model's own names, and those of the adapter as PEFT's files name them.
/// Without PEFT's names all are the base's.
pub fn split(tensors: Vec<SourceTensor>) -> (Vec<SourceTensor>, Vec<SourceTensor>) {
    let (adapter, base): (Vec<_>, Vec<_>) = tensors
        .into_iter()
        .partition(|tensor| is_adapter(&tensor.name));
    let has_adapter = !adapter.is_empty();
    let base =
        base.into_iter().map(
            |tensor| match has_adapter || tensor.name.starts_with(PREFIX) {
                true => renamed(tensor, base_name),
                false => tensor,
            },
        );
    (
        base.collect(),
        adapter
            .into_iter()
            .map(|tensor| renamed(tensor, adapter_name))
            .collect(),
    )
}

fn is_adapter(name: &str) -> bool {
    name.split('.')
        .any(|component| ADAPTER.contains(&component))
}

fn renamed(tensor: SourceTensor, name: fn(&str) -> String) -> SourceTensor {
    SourceTensor {
        name: name(&tensor.name).into(),
        ..tensor
    }
}

/// `base_model.model.q_proj.base_layer.weight` is the model's `q_proj.weight`.
fn base_name(name: &str) -> String {
    name.trim_start_matches(PREFIX)
        .split('.')
        .filter(|component| *component != "base_layer")
        .collect::<Vec<_>>()
        .join(".")
}

/// `q_proj.lora_A.default.weight` is `q_proj.lora_A.weight` in a file: the adapter's name in memory goes.
fn adapter_name(name: &str) -> String {
    let mut components: Vec<&str> = name.trim_start_matches(PREFIX).split('.').collect();
    if let Some(at) = components
        .iter()
        .position(|component| ADAPTER.contains(component))
        && components.get(at + 1).is_some_and(|next| *next != "weight")
    {
        components.remove(at + 1);
    }
    format!("{PREFIX}{}", components.join("."))
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
    }
}
