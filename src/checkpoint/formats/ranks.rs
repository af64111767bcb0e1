//! Files that ranks name by their numbers, `model_rank_1.pt`, `pytorch_model_fsdp_0_rank1.bin`: which of them are missing.

use std::collections::BTreeSet;

use crate::error::INCOMPLETE;

/// How many names a message shows.
const SHOWN: usize = 8;

/// Most ranks that are counted.
const MOST: u64 = 1 << 16;

/// Why files of ranks do not make a whole, if some of the `world` are not among `names`.
pub fn missing(names: &[String], world: u64) -> Option<String> {
    let (front, _, back) = names.iter().find_map(|name| split(name))?;
    let own = names.iter().filter_map(|name| split(name));
    let own: BTreeSet<u64> = own
        .filter(|(own, _, end)| *own == front && *end == back)
        .map(|(_, rank, _)| rank)
        .collect();
    let missing: Vec<u64> = (0..world.min(MOST))
        .filter(|rank| !own.contains(rank))
        .collect();
    let shown = missing.iter().take(SHOWN);
    let shown: Vec<String> = shown.map(|rank| format!("{front}{rank}{back}")).collect();
    let (count, names) = (missing.len(), shown.join(", "));
    let more = if count > SHOWN { ", ..." } else { "" };
    (count > 0).then(|| {
        format!("the files of {count} of {world} ranks are missing, {names}{more}: {INCOMPLETE}")
    })
}

/// What stands before the number of the rank in a name, the number, and what stands behind.
fn split(name: &str) -> Option<(&str, u64, &str)> {
    const WORD: &str = "rank";
    let word = name.rfind(WORD)? + WORD.len();
    let digits = name[word..].trim_start_matches('_');
    let end = digits.find(|char: char| !char.is_ascii_digit())?;
    let front = &name[..name.len() - digits.len()];
    Some((front, digits[..end].parse().ok()?, &digits[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_ranks_are_named_as_their_files_would_be() {
        let told = |names: &[&str], world| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            missing(&names, world)
        };
        let accelerate = told(&["pytorch_model_fsdp_0_rank0.bin"], 2).unwrap();
        assert!(accelerate.contains("1 of 2 ranks are missing, pytorch_model_fsdp_0_rank1.bin:"));
        let verl = told(&["model_world_size_3_rank_1.pt"], 3).unwrap();
        assert!(verl.contains("model_world_size_3_rank_0.pt, model_world_size_3_rank_2.pt"));
        assert_eq!(told(&["m_rank_0.pt", "m_rank_1.pt"], 2), None);
        assert_eq!(told(&["rank.pt", "model.pt"], 2), None);
        assert!(
            told(&["m_rank_0.pt"], u64::MAX)
                .unwrap()
                .contains("m_rank_8.pt, ...")
        );
    }
}
