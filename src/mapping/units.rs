//! Which tensors never part when a model is sharded.

use foldhash::{HashMap, HashMapExt};

use super::apply::MappedTensor;
use super::family::Family;
use super::pattern::{Bindings, form_of};

/// The unit of each tensor, counted from 0 in the order of their first tensors: tensors that transformers cuts out of one
/// tensor in memory share its storage, and huggingface_hub leaves what shares a storage in one shard (2.4.0,
/// `split_state_dict_into_shards_factory`). All others are alone.
pub fn units(family: Option<&Family>, tensors: &[MappedTensor]) -> Vec<usize> {
    let mut count = 0;
    let mut fused: HashMap<(usize, u64), usize> = HashMap::new();
    let mut next = || {
        count += 1;
        count - 1
    };
    let unit = |tensor: &MappedTensor| match family.and_then(|family| storage(family, &tensor.name))
    {
        Some(storage) => *fused.entry(storage).or_insert_with(&mut next),
        None => next(),
    };
    tensors.iter().map(unit).collect()
}

/// Which fused tensor of which layer a tensor is cut out of.
fn storage(family: &Family, name: &str) -> Option<(usize, u64)> {
    if family.fused.is_empty() {
        return None;
    }
    let (form, numbers) = form_of(name);
    let layer = |bindings: Bindings| bindings.get("layer").copied();
    family.fused.iter().enumerate().find_map(|(entry, names)| {
        let mut patterns = names.0.iter().filter(|pattern| pattern.form == form);
        let bindings = patterns.find_map(|pattern| pattern.bind(&numbers))?;
        Some((entry, layer(bindings)?))
    })
}
