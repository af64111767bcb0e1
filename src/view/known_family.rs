//! Families whose tensors tables list: every name is a rule's, and what config.json promises is there.

use super::config::ConfigFile;
use super::detect_system::Chosen;
use super::names::spelling::Spelling;
use super::names::{self, families};
use super::note::Note;
use super::options::Options;
use super::reading::{Mapped, Reading};
use super::{compare, copies, detect_system, tied};
use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::mapping::{self, Dropped, Family, Outcome, System, Tables};

/// The tensors of a family that tables know, every one accounted for; foreign where a name is of no system's.
pub fn read(
    checkpoint: &Checkpoint,
    tables: &Tables,
    family: &Family,
    config: &mut ConfigFile,
    options: &Options,
    notes: &mut Vec<Note>,
) -> Result<Reading> {
    let systems: Vec<&System> = tables.systems_of(family).collect();
    let tensors = &checkpoint.tensors;
    let chosen = detect_system::choose(
        &systems,
        family,
        tensors,
        options.system.as_deref(),
        options.entry.as_deref(),
        checkpoint,
        config.values().is_base(),
    )?;
    let Some(chosen) = chosen else {
        let error = names::of_no_system(tables, family, tensors);
        return Ok(Reading::Foreign(said(
            error, checkpoint, tables, family, config,
        )));
    };
    config.infer(chosen.system, family, &chosen.tensors)?;
    let applied = mapping::apply(chosen.system, family, config.values(), &chosen.tensors);
    let outcome =
        applied.map_err(|error| said(config.explain(error), checkpoint, tables, family, config))?;
    if !outcome.unknown.is_empty() {
        let error = names::unknown(tables, chosen.system, family, &outcome.unknown);
        let error = names::or_copy(error, &chosen.state);
        let error = said(config.explain(error), checkpoint, tables, family, config);
        return Ok(Reading::Foreign(error));
    }
    let left_out = names::left_out(&chosen.state, options.keep_extra);
    notes.extend(left_out);
    let mapped = settled(checkpoint, family, chosen, outcome, config, options, notes);
    mapped
        .map(|mapped| Reading::Whole(Box::new(mapped)))
        .map_err(|error| said(error, checkpoint, tables, family, config))
}

/// The error, or the one that config.json is of another family, where the names say so.
fn said(
    error: Error,
    checkpoint: &Checkpoint,
    tables: &Tables,
    family: &Family,
    config: &ConfigFile,
) -> Error {
    match error {
        Error::Mapping(_) if !tables.speaks_of(family) => {
            let said = config.family_said();
            families::contradicted(tables, family, &checkpoint.tensors, &said).unwrap_or(error)
        }
        other => other,
    }
}

/// The tensors once tied ones, promises and dropped ones have been seen to.
fn settled(
    checkpoint: &Checkpoint,
    family: &Family,
    chosen: Chosen<'_>,
    mut outcome: Outcome,
    config: &mut ConfigFile,
    options: &Options,
    notes: &mut Vec<Note>,
) -> Result<Mapped> {
    copies::check(checkpoint, &chosen.tensors, &outcome.tensors, notes)?;
    config.complete(family, &outcome.tensors)?;
    config.see_heads(family, &outcome.tensors);
    let tied = tied::settle(
        family,
        config.values(),
        &chosen.state.beside,
        &mut outcome,
        notes,
    )?;
    let expected = mapping::expected(family, config.values(), outcome.tensors.len());
    let expected = expected.map_err(|error| config.explain(error))?;
    if let Some((found, promised)) = mapping::shortfall(&expected, &outcome.tensors) {
        checkpoint.check_share(found, promised)?;
    }
    let checked = mapping::check(family, config.values(), &expected, outcome.tensors);
    outcome.tensors = checked.map_err(|error| config.explain(error))?;
    for dropped in &outcome.dropped {
        note_dropped(dropped, notes)?;
    }
    if options.keep_extra {
        outcome.tensors.extend(names::extra(&chosen.state)?);
    }
    notes.extend(chosen.system.note.clone().map(Note::warning));
    let spelling = match config.values().is_base() {
        true => Spelling::InBase,
        false => Spelling::Own,
    };
    Ok(Mapped {
        system: chosen.system.name.clone(),
        entries: chosen.state.entries(chosen.tensors.len()),
        outcome,
        tied: tied.into_iter().collect(),
        spelling,
    })
}

fn note_dropped(dropped: &Dropped, notes: &mut Vec<Note>) -> Result<()> {
    let text = format!("{} is left out: {}", dropped.source.name, dropped.why);
    let mut parts = dropped.source.parts.iter().filter(|_| dropped.unless_zero);
    let is_zero = parts.try_fold(true, |zero, part| Ok(zero && compare::is_zero(part)?))?;
    notes.push(match is_zero {
        true => Note::remark(text),
        false => Note::warning(format!(
            "{text}; it is not zero, so the model will not compute what was trained"
        )),
    });
    Ok(())
}
