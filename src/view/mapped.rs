//! A checkpoint's tensors under Hugging Face's names, by the first knowledge that accounts for every name: the tables of the
//! family that config.json says, then the class that it names, then any class of its model type.

use super::config::ConfigFile;
use super::names::families;
use super::note::Note;
use super::options::Options;
use super::reading::{Mapped, Reading};
use super::{known_class, known_family, names, unknown_family};
use crate::checkpoint::Checkpoint;
use crate::error::Result;
use crate::mapping::{Classes, Family, Tables};

/// # Errors
/// Where no knowledge accounts for every name, that of the first; any other fault of what the names are of.
pub fn map(
    checkpoint: &mut Checkpoint,
    tables: &Tables,
    family: Option<&Family>,
    config: &mut ConfigFile,
    options: &Options,
    notes: &mut Vec<Note>,
) -> Result<Mapped> {
    let mut refused = None;
    if let Some(family) = family {
        match known_family::read(checkpoint, tables, family, config, options, notes)? {
            Reading::Whole(mapped) => return Ok(*mapped),
            Reading::Foreign(error)
                if tables.speaks_of(family)
                    || known_class::is_of_another_type(&Classes::load(), config) =>
            {
                return Err(error);
            }
            Reading::Foreign(error) => refused = Some(error),
        }
    } else if config.is_untyped()
        && let Some(error) = families::unsaid(tables, &checkpoint.tensors)
    {
        return Err(error);
    }
    let classes = Classes::load();
    for group in known_class::groups(&classes, config) {
        match known_class::read(checkpoint, tables, &classes, &group, config, options, notes)? {
            Reading::Whole(mapped) => return Ok(*mapped),
            Reading::Foreign(error) => refused = refused.or(Some(error)),
        }
    }
    match refused {
        Some(error) if family.is_some() || !may_pass(checkpoint, tables, &classes, config) => {
            Err(error)
        }
        None => unknown_family::map(checkpoint, tables, config, options, notes),
        Some(error) => {
            let mapped = unknown_family::map(checkpoint, tables, config, options, notes)?;
            let mut tensors = mapped.outcome.tensors.iter();
            let is_composed = known_class::is_composed(config);
            match is_composed && !tensors.all(|tensor| known_class::is_of_part(&tensor.name)) {
                true => Err(error),
                false => Ok(mapped),
            }
        }
    }
}

/// Returns whether names that no class has may be right: those of code that config.json names, of another system, or of parts
/// that config.json chooses.
fn may_pass(
    checkpoint: &Checkpoint,
    tables: &Tables,
    classes: &Classes,
    config: &ConfigFile,
) -> bool {
    let family = tables.unknown_family(config.model_type());
    known_class::has_own_code(classes, config)
        || known_class::is_composed(config)
            && (checkpoint.is_hugging_face() || known_class::parts_write_as_is(classes, config))
        || family.is_some_and(|family| {
            names::other_system(tables, family, &checkpoint.tensors).is_some()
        })
}
