//! A user's own mapping table, checked without a checkpoint.

use std::path::Path;

use super::side_files::{self, CONFIG};
use crate::checkpoint;
use crate::error::{Error, Result};
use crate::mapping::{self, Config, Tables};

/// The model of a config.json according to a table.
pub struct TableReport {
    pub tables: Tables,
    pub config: Config,
    pub family: String,
    /// Number of tensors that the model must have. Those that it may have need no rule.
    pub required: usize,
    /// Faults of the table, one line each.
    pub faults: Vec<String>,
    /// Rules that `--names` cannot run backwards, one line each.
    pub one_way: Vec<String>,
}

/// Looks for faults of the table `file` with the config.json in `config_from`.
///
/// # Errors
/// When the table is no table, or has no family of that config.json.
pub fn check(file: &Path, config_from: &Path) -> Result<TableReport> {
    let tables = Tables::load(Some(file))?;
    let files = checkpoint::side_files_in(config_from)?;
    let Some(config) = files.iter().find(|own| own.path == CONFIG) else {
        let reason = "has no config.json; name the model's Hugging Face folder as --config-from";
        return Err(Error::checkpoint(config_from, reason));
    };
    let config = Config::new(side_files::read_config(&config.file)?);
    let model_type = config.model_type().unwrap_or_default().to_owned();
    let Some(family) = tables.family(&model_type) else {
        let reason = format!(
            "no family has model_type {}; add it to the model_types of one",
            model_type.escape_debug()
        );
        return Err(Error::checkpoint(file, reason));
    };
    let mut faults = mapping::lint(&tables);
    faults.extend(tables.lint_model(family, &config));
    let listed = mapping::expected(family, &config, 0);
    let tied = mapping::is_tied(family, &config).err();
    let listed_tensors = listed.iter().flatten();
    let required = listed_tensors.filter(|tensor| tensor.required).count();
    faults
        .extend({ listed.err().or(tied) }.map(|error| format!("family {}: {error}", family.name)));
    Ok(TableReport {
        family: family.name.clone(),
        required,
        faults,
        one_way: mapping::one_way_rules(&tables),
        config,
        tables,
    })
}
