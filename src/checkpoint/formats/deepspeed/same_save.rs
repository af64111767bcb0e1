//! Whether the files of all ranks are there and of one save.

use super::TensorRank;
use super::files::Files;
use super::model_states::ModelStates;
use super::optim_states::OptimStates;
use crate::error::{Error, Result};

const MIXED: &str = "files of two saves are mixed; copy one of them whole";

/// The first rank's model states.
///
/// # Errors
/// When a file is missing, one is of no rank, or two are of two saves.
pub fn check<'r>(
    files: &Files,
    ranks: &'r [TensorRank],
    is_universal: bool,
) -> Result<&'r ModelStates> {
    let mut models = ranks.iter().flat_map(|rank| &rank.models);
    let Some(first) = models.next() else {
        return Err(Error::Mapping("holds no *_model_states.pt".to_owned()));
    };
    let optims = || ranks.iter().flat_map(|rank| &rank.optims);
    let tensor_ranks = first.tensor_ranks.unwrap_or(1);
    let Some(world) = world(first, optims().next())? else {
        return Ok(first);
    };
    let with_optims = !is_universal && (first.groups.is_some() || optims().next().is_some());
    if with_optims && optims().next().is_none() && !first.is_divided {
        let reason = format!(
            "is here without the optimizer's states, *_optim_states.pt, which hold the F32 masters; name {} itself to see the weights that it has",
            first.file()
        );
        return Err(Error::checkpoint(&first.path, reason));
    }
    files.require(world, tensor_ranks, with_optims)?;
    check_steps(ranks)?;
    check_alike(optims())?;
    Ok(first)
}

/// How many data-parallel ranks there are, by the first files of the model and of the optimizer.
fn world(model: &ModelStates, optim: Option<&OptimStates>) -> Result<Option<u64>> {
    match (model.data_ranks, optim) {
        (Some(own), Some(optim)) if own != optim.world => {
            let reason = format!(
                "is of a world of {} ranks, {} of {own}: {MIXED}",
                optim.world,
                model.file()
            );
            Err(Error::checkpoint(&optim.path, reason))
        }
        (own, optim) => Ok(optim.map(|optim| optim.world).or(own)),
    }
}

/// Refuses model states of two steps.
fn check_steps(ranks: &[TensorRank]) -> Result<()> {
    let mut steps = ranks
        .iter()
        .flat_map(|rank| &rank.models)
        .filter_map(|model| Some((model, model.steps?)));
    let Some((first, step)) = steps.next() else {
        return Ok(());
    };
    match steps.find(|(_, other)| *other != step) {
        None => Ok(()),
        Some((model, other)) => Err(Error::checkpoint(
            &model.path,
            format!(
                "is of step {other}, {} of step {step}: {MIXED}",
                first.file()
            ),
        )),
    }
}

/// Refuses optimizer states of two worlds, stages or steps.
fn check_alike<'o>(mut all: impl Iterator<Item = &'o OptimStates>) -> Result<()> {
    let Some(first) = all.next() else {
        return Ok(());
    };
    let refuse = |odd: &OptimStates, own: String, other: String| {
        let reason = format!("is of {own}, {} of {other}: {MIXED}", first.name);
        Err(Error::checkpoint(&odd.path, reason))
    };
    for odd in all {
        if odd.world != first.world {
            return refuse(
                odd,
                format!("a world of {} ranks", odd.world),
                format!("{}", first.world),
            );
        }
        if odd.stage != first.stage {
            return refuse(
                odd,
                odd.stage.word().to_owned(),
                first.stage.word().to_owned(),
            );
        }
        if let (Some((key, step)), Some((first_key, first_step))) = (&odd.step, &first.step)
            && key == first_key
            && step != first_step
        {
            return refuse(odd, format!("step {step}"), format!("step {first_step}"));
        }
    }
    Ok(())
}

/// Why model and optimizer states may be of two steps. An optimizer that was made anew counts from its own beginning, so
/// that only the elements can tell.
pub fn doubt(ranks: &[TensorRank]) -> Option<String> {
    let rank = ranks.first()?;
    let (model, optim) = rank.models.first().zip(rank.optims.first())?;
    let taken = model.steps?.checked_sub(model.skipped_steps)?;
    let (_, step) = optim.step.as_ref().filter(|(_, step)| *step != taken)?;
    Some(format!(
        "{} is of step {taken}, the optimizer in {} of step {step}",
        model.file(),
        optim.name
    ))
}
