//! Files that are checkpoints of their own in one folder, told by their names: Lightning's `epoch=0-step=10.ckpt`,
//! `step_100.pt`, `checkpoint-100.pt`, `best.pt`.

use super::layout::{CheckpointFormat, Files};

/// Ends of names of files that hold tensors.
const ENDS: [&str; 6] = [".ckpt", ".pt", ".pth", ".pth.tar", ".bin", ".safetensors"];

/// The word that the last number of a name counts in a file that holds all.
const COUNTS: [&str; 7] = [
    "step",
    "steps",
    "epoch",
    "iter",
    "iteration",
    "checkpoint",
    "ckpt",
];

/// Words for a file in the place of a number.
const WORDS: [&str; 4] = ["last", "latest", "best", "final"];

/// In names of parts of a checkpoint.
const PARTS: [&str; 3] = ["rank", "shard", "-of-"];

/// The name without the end of a file.
pub fn stem(name: &str) -> &str {
    let mut stems = ENDS.iter().filter_map(|end| name.strip_suffix(end));
    stems.next().unwrap_or(name)
}

/// Whether a file of that name is a whole checkpoint, whatever lies beside it.
pub fn is_single_file(name: &str) -> bool {
    if PARTS.iter().any(|part| name.contains(part)) {
        return false;
    }
    let stem = stem(name);
    let kind = stem.trim_end_matches(|char: char| char.is_ascii_digit());
    let words = if kind == stem { &WORDS[..] } else { &COUNTS };
    let last = kind
        .rsplit(|char: char| !char.is_ascii_alphabetic())
        .find(|word| !word.is_empty());
    let is_known = || last.is_some_and(|word| words.contains(&&*word.to_ascii_lowercase()));
    name.ends_with(".ckpt") || stem != name && is_known()
}

/// The names of the files of a folder that are several checkpoints.
pub fn single_files(layouts: &[CheckpointFormat]) -> &[String] {
    match layouts {
        [
            CheckpointFormat::Torch(Files { names, index: None })
            | CheckpointFormat::Safetensors(Files { names, index: None }),
        ] if names.len() > 1 && names.iter().all(|name| is_single_file(name)) => names,
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_whole_checkpoints_from_parts() {
        for name in [
            "epoch=0-step=10.ckpt",
            "last.ckpt",
            "last-v1.ckpt",
            "step_100.pt",
            "checkpoint-100.pt",
            "model_epoch_3.pth",
            "iter_1000.pth",
            "checkpoint_best.pt",
            "step_5.safetensors",
            "checkpoint_10.pth.tar",
        ] {
            assert!(is_single_file(name), "{name}");
        }
        for name in [
            "model-00001-of-00002.safetensors",
            "pytorch_model-00001-of-00002.bin",
            "hf_model_0001_0.pt",
            "consolidated.00.pth",
            "model_0.pt",
            "model.safetensors",
            "checkpoint-rank-0.ckpt",
            "checkpoint_last-shard0.pt",
            "a.pt",
            "step_100",
        ] {
            assert!(!is_single_file(name), "{name}");
        }
    }
}
