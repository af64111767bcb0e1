//! Weights of a model beside the states of DeepSpeed that trained it, as the Hugging Face Trainer saves both.

use serde::Deserialize;

use super::layout::CheckpointFormat;
use crate::checkpoint::folder::Folder;
use crate::error::{Error, Result};

/// The Trainer's own file beside both.
const TRAINER: &str = "trainer_state.json";

/// Files of whole models; others may be anything.
const MODELS: [&str; 3] = ["model", "pytorch_model", "adapter_"];

#[derive(Deserialize)]
struct TrainerState {
    global_step: u64,
}

/// Leaves the states of DeepSpeed out of `found` where the model's own weights are of the same step, and says so.
///
/// # Errors
/// When the two are of different steps.
pub fn pass_over(folder: &Folder, found: &mut Vec<CheckpointFormat>) -> Result<Option<String>> {
    let [own, CheckpointFormat::DeepSpeed(Some(tag))] = &**found else {
        return Ok(None);
    };
    let is_model = |names: &[String]| {
        names
            .iter()
            .all(|name| MODELS.iter().any(|start| name.starts_with(start)))
    };
    let is_whole = match own {
        CheckpointFormat::Safetensors(files) | CheckpointFormat::Torch(files) => {
            is_model(&files.names)
        }
        own => *own == CheckpointFormat::Adapter,
    };
    if !is_whole {
        return Ok(None);
    }
    if let (Some(trained), Some(step)) = (trainers_step(folder), step(tag))
        && trained != step
    {
        let reason = format!(
            "holds {} of step {trained}, and {tag} of DeepSpeed, which latest names; pass --system {} or --system deepspeed",
            own.evidence(),
            own.word()
        );
        return Err(Error::checkpoint(folder.path(), reason));
    }
    let note = format!("{tag} beside holds DeepSpeed's F32 masters: --system deepspeed shows them");
    found.truncate(1);
    Ok(Some(note))
}

fn trainers_step(folder: &Folder) -> Option<u64> {
    let is_there = folder.exists(TRAINER);
    let state = is_there.then(|| folder.json::<TrainerState>(TRAINER));
    Some(state?.ok()?.global_step)
}

/// 40 of `global_step40`.
fn step(tag: &str) -> Option<u64> {
    tag.strip_prefix("global_step")?.parse().ok()
}
