//! Names that tell by themselves what an entry of a state is: an optimizer's, a wrapper's, a buffer's, a copy's.

use std::borrow::Cow;

use crate::tensor::{SourceTensor, Tensor};

/// Entries under which training loops keep the state of optimizers.
const OPTIMIZERS: [&str; 7] = [
    "optimizer",
    "optim",
    "optimizers",
    "optimizer_states",
    "optimizer_state",
    "optimizer_state_dict",
    "optim_state_dict",
];

/// Entries that hold a model and nothing else, and containers in which they stand.
const MODELS: [&str; 4] = ["model", "module", "model_state", "model_state_dict"];
const CONTAINERS: [&str; 3] = ["app", "dcp", "state_dict"];

/// Components that optimizers put into the names of their state, below such an entry.
const OPTIMIZER_PARTS: [&str; 7] = [
    "state",
    "param_groups",
    "param_state",
    "distributed",
    "fp32_from_fp16_params",
    "fp32_from_float16_params",
    "base_optimizer_state",
];

/// Moments of a parameter, which no model has.
const MOMENTS: [&str; 4] = ["exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer"];

/// Components that torch's wrappers insert anywhere: `torch.compile`, activation checkpointing, FSDP1.
const WRAPPERS: [&str; 3] = [
    "_orig_mod",
    "_checkpoint_wrapped_module",
    "_fsdp_wrapped_module",
];

/// Names that a state may have above those of its weights.
const ROOTS: [&str; 10] = [
    "model",
    "module",
    "state",
    "state_dict",
    "model_state",
    "model_state_dict",
    "_forward_module",
    "app",
    "dcp",
    "adapter",
];

/// Words in the names of entries that hold another copy of the model.
const COPIES: [&str; 9] = [
    "ema",
    "average",
    "averaged",
    "shadow",
    "swa",
    "teacher",
    "target",
    "ref",
    "reference",
];

/// Modules that wrappers of reinforcement learning put beside a language model.
const HEADS: [&str; 2] = ["v_head", "value_head"];

/// Buffers of rotary embeddings, which a model computes from its config.
const ROTARY: [&str; 6] = [
    "inv_freq",
    "original_inv_freq",
    "cos_cached",
    "sin_cached",
    "cos",
    "sin",
];

/// Returns whether a name, its components joined by dots, is of an optimizer's state.
pub fn is_optimizers(name: &str) -> bool {
    optimizers_entry(name).is_some()
}

/// The entry of a state that holds this tensor of an optimizer. `None` of others, and of all that the model's entry holds,
/// whatever its modules are called.
pub fn optimizers_entry(name: &str) -> Option<&str> {
    let mut top = name.split('.').skip_while(|part| CONTAINERS.contains(part));
    if top.next().is_some_and(|part| MODELS.contains(&part)) {
        return None;
    }
    let is_entry = |component: &str| {
        OPTIMIZERS.contains(&unnumbered(component)) || component.starts_with("chained_")
    };
    let mut components = name.split('.');
    let entry = components.find(|component| is_entry(component));
    let end = entry.map(|entry| entry.as_ptr() as usize - name.as_ptr() as usize + entry.len());
    let is_moment = name.split('.').any(|part| MOMENTS.contains(&part));
    let mut below = components.peekable();
    let is_item = name.rsplit('.').next().is_some_and(is_number) && below.peek().is_some();
    match end {
        Some(end) if is_moment || is_item || below.any(|part| OPTIMIZER_PARTS.contains(&part)) => {
            name.get(..end)
        }
        None if is_moment && is_state(name) => name.split('.').next(),
        _ => None,
    }
}

/// Whether a name that has a moment in it is that of an optimizer's state, which stands below the key `state` or a parameter:
/// a module may be called so, too.
fn is_state(name: &str) -> bool {
    let is_parameter = |owner: &str| matches!(owner, "weight" | "bias") || is_number(owner);
    let below_parameter = name.rsplit_once('.').is_some_and(|(owner, last)| {
        MOMENTS.contains(&last) && owner.rsplit('.').next().is_some_and(is_parameter)
    });
    below_parameter || name.split('.').next() == Some("state")
}

fn is_number(component: &str) -> bool {
    !component.is_empty() && component.bytes().all(|byte| byte.is_ascii_digit())
}

/// `optimizer` of `optimizer_0`, as Lightning calls the first of several.
pub fn unnumbered(component: &str) -> &str {
    let stem = component.trim_end_matches(|char: char| char.is_ascii_digit());
    stem.strip_suffix('_').unwrap_or(component)
}

/// Returns whether a component of a name is one that torch's wrappers insert.
pub fn is_wrapper(component: &str) -> bool {
    WRAPPERS.contains(&component)
}

/// Returns the name of a module without what wrappers inserted, `module` of DistributedDataParallel in front as well: for
/// files of systems whose models are always wrapped.
pub fn unwrapped(name: &str) -> Cow<'_, str> {
    let is_wrapped = |name: &str| name.contains("_wrapped_module") || name.contains("_orig_mod");
    let mut own = name;
    // DistributedDataParallel and DataParallel.
    while let Some(rest) = own.strip_prefix("module.") {
        own = rest;
    }
    if !is_wrapped(own) {
        return own.into();
    }
    let mut kept: Vec<&str> = own
        .split('.')
        .filter(|component| !WRAPPERS.contains(component))
        .collect();
    while kept.len() > 1 && kept.first() == Some(&"module") {
        kept.remove(0);
    }
    kept.join(".").into()
}

/// Returns whether a wrapper that is not known may be called so.
pub fn may_wrap(component: &str) -> bool {
    component.starts_with('_') || component == "module" || component.ends_with("_module")
}

/// Returns whether a state may have this above the names of its weights.
pub fn is_root(component: &str) -> bool {
    ROOTS.contains(&component)
}

/// Returns whether an entry called so, its components joined by dots, holds another copy of the model, as averages of its weights.
pub fn is_copy(entry: &str) -> bool {
    let mut words = entry.split(['.', '_']);
    words.any(|word| COPIES.contains(&&*word.to_lowercase()))
}

/// Returns whether a name is of a head that a wrapper of reinforcement learning adds.
pub fn is_added_head(name: &str) -> bool {
    name.split('.')
        .next()
        .is_some_and(|first| HEADS.contains(&first))
}

/// Returns whether a tensor is no weight by its elements: one alone, as a step or a best loss, or a row of integers, as the
/// state of a random generator.
pub fn is_counter(tensor: &SourceTensor) -> bool {
    let of_training = |part: &Tensor| {
        let shape = part.shape();
        shape.elements() <= 1 || shape.rank() <= 1 && !part.dtype().is_castable()
    };
    tensor.parts.iter().all(of_training)
}

/// Returns whether a tensor is state of a module, but never a weight: Transformer Engine's extra state, rotary buffers, masks.
pub fn is_never_weight(tensor: &SourceTensor, name: &str) -> bool {
    let mut ends = name.rsplit('.');
    let (last, owner) = (ends.next().unwrap_or_default(), ends.next());
    let owner = owner.unwrap_or_default();
    let is_mask = || {
        let dims = tensor
            .parts
            .first()
            .map_or(0, |part| part.shape().dims().len());
        last == "bias" && dims == 4 && owner.starts_with("att")
    };
    last.starts_with("_extra_state")
        || matches!(last, "position_ids" | "masked_bias")
        || ROTARY.contains(&last) && (owner.contains("rotary") || owner.contains("rope"))
        || is_mask()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn optimizer_state_is_told_by_what_it_is_and_not_by_a_word() {
        for name in [
            "optimizer.state.model.norm.weight.exp_avg",
            "optim.param_groups.0.lr",
            "optimizer_0.state.model.norm.weight.step",
            "optimizer_states.0.state.3.momentum_buffer",
            "chained_0.optimizer.state.step",
            "optimizer.fp32_from_fp16_params.0.3",
            "app.optim.state.layers.0.weight.exp_avg",
            "state.exp_avg.decoder.layers.linear.weight",
            "layers.0.weight.exp_avg",
            "3.momentum_buffer",
        ] {
            assert!(is_optimizers(name), "{name}");
        }
        for name in [
            "model.optimizer_gate.weight",
            "optimizer.weight",
            "loops.0.weight",
            "scheduler.bias",
            "step",
            "model.optim.state.weight",
            "model.optimizer.layers.1",
            "app.model.momentum_buffer",
            "state_dict.model.exp_avg",
            "blk.exp_avg.weight",
            "blk.exp_avg",
            "state_dict.blk.momentum_buffer",
        ] {
            assert!(!is_optimizers(name), "{name}");
        }
    }

    #[test]
    fn the_entry_of_an_optimizer_is_named_in_full() {
        let entry = optimizers_entry("app.optim.state.layers.0.weight.exp_avg");
        assert_eq!(entry, Some("app.optim"));
        assert_eq!(optimizers_entry("optimizer_0.state.a"), Some("optimizer_0"));
    }

    #[test]
    fn wrappers_go_from_anywhere_and_module_from_the_front() {
        assert_eq!(
            unwrapped("module._orig_mod.a._checkpoint_wrapped_module.b"),
            "a.b"
        );
        assert_eq!(unwrapped("a.module.b"), "a.module.b");
        assert_eq!(unwrapped("module"), "module");
    }

    #[test]
    fn copies_are_told_by_words_of_their_names() {
        assert!(is_copy("callbacks.EMA.ema_state"));
        assert!(is_copy("model_ema."));
        assert!(!is_copy("schema.model"));
    }
}
