//! Which entries of a training state are weights, and what wrappers add to their names.

use std::borrow::Cow;

/// Components of names that training keeps beside the weights. A name with one of them is left alone.
const TRAINING: [&str; 17] = [
    "optimizer",
    "optim",
    "optimizers",
    "optimizer_states",
    "optimizer_state_dict",
    "lr_scheduler",
    "lr_schedulers",
    "scheduler",
    "dataloader",
    "train_state",
    "rng_state",
    "rng",
    "callbacks",
    "loops",
    "exp_avg",
    "exp_avg_sq",
    "max_exp_avg_sq",
];

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

/// Values that training loops keep at the top of their state.
const COUNTERS: [&str; 8] = [
    "step",
    "global_step",
    "epoch",
    "epochs_run",
    "iteration",
    "seed",
    "max_steps_per_epoch",
    "total_epochs",
];

/// Whether a name, its components joined by dots, is a weight's.
pub fn is_weight(name: &str) -> bool {
    if COUNTERS.contains(&name) {
        return false;
    }
    let chained = |component: &str| component.starts_with("chained_");
    let first = name.split('.').next().unwrap_or_default();
    !chained(first)
        && !name
            .split('.')
            .any(|component| TRAINING.contains(&unnumbered(component)))
}

/// `optimizer` of `optimizer_0`, as Lightning calls the first of several.
pub fn unnumbered(component: &str) -> &str {
    let stem = component.trim_end_matches(|char: char| char.is_ascii_digit());
    stem.strip_suffix('_').unwrap_or(component)
}

/// The name without what wrappers inserted.
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
    while kept.len() > 1 && kept[0] == "module" {
        kept.remove(0);
    }
    kept.join(".").into()
}

/// How many dictionaries, one in the other, a state keeps all of its weights in above the one that is the model's own.
pub fn containers(paths: &[&[String]]) -> usize {
    let shared = |depth: &usize| {
        let key = |path: &&[String]| path.get(*depth).filter(|_| path.len() > depth + 1).cloned();
        let first = paths.first().and_then(key);
        first.as_deref().is_some_and(|first| ROOTS.contains(&first))
            && paths.iter().all(|path| key(path) == first)
    };
    (0..).take_while(shared).count()
}

/// Whether a state may have this above the names of its weights.
pub fn is_root(component: &str) -> bool {
    ROOTS.contains(&component)
}

/// Roots that all of `names` share above their own names, shortest first, starting with none: those of training loops.
pub fn shared_roots(names: &[&str]) -> Vec<String> {
    roots(names, &is_root)
}

/// The same, whatever they are called: in Lightning the attribute that holds the model.
pub fn any_shared_roots(names: &[&str]) -> Vec<String> {
    roots(names, &|_| true)
}

fn roots(names: &[&str], may_be: &dyn Fn(&str) -> bool) -> Vec<String> {
    let mut roots = vec![String::new()];
    loop {
        let root = roots.last().cloned().unwrap_or_default();
        let next = names
            .first()
            .and_then(|name| name.strip_prefix(&*root)?.split_once('.'));
        let Some((component, _)) = next.filter(|(component, _)| may_be(component)) else {
            return roots;
        };
        let longer = format!("{root}{component}.");
        if !names.iter().all(|name| name.starts_with(&longer)) {
            return roots;
        }
        roots.push(longer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn optimizer_state_is_told_by_components_and_not_by_substrings() {
        assert!(!is_weight("optimizer.state.model.norm.weight.exp_avg"));
        assert!(!is_weight("optim.param_groups.0.lr"));
        assert!(!is_weight("optimizer_0.state.model.norm.weight.exp_avg"));
        assert!(!is_weight("chained_0.optimizer_x"));
        assert!(is_weight("model.optimizer_gate.weight"));
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
    fn containers_are_dictionaries_and_not_parts_of_names() {
        let path = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>();
        let paths = [
            path(&["state_dict", "model.a"]),
            path(&["state_dict", "model.b"]),
        ];
        assert_eq!(containers(&[&paths[0], &paths[1]]), 1);
        let own = path(&["model.a"]);
        assert_eq!(containers(&[&own]), 0);
        assert_eq!(containers(&[&paths[0], &own]), 0);
        assert_eq!(containers(&[]), 0);
    }

    #[test]
    fn roots_are_shared_by_all_names() {
        assert_eq!(
            shared_roots(&["model.model.a", "model.model.b"]),
            ["", "model.", "model.model."]
        );
        assert_eq!(shared_roots(&["model.a", "lm_head.b"]), [""]);
    }
}
