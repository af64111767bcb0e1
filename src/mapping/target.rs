//! Names that can be written: which systems' tables run backwards, and what the files of each target hold besides.

use serde::Deserialize;

use super::family::Family;
use super::pattern::Spelling;
use super::table::System;
use super::tables::Tables;

/// One value of `--names`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetNames {
    pub name: String,
    /// The first of these that has a family gives its names.
    pub systems: Vec<String>,
    /// Families that the systems name and the target's own code does not have.
    #[serde(default)]
    pub except: Vec<String>,
    pub spelling: Spelling,
    /// The entry of a DCP in which the model lies.
    #[serde(default)]
    pub root: String,
    /// The entry of a `torch.save` file in which the model lies.
    #[serde(default)]
    pub file_root: String,
    /// The name under which a tied output head is repeated, where the target's readers want it.
    pub tied: Option<String>,
}

impl TargetNames {
    /// The system whose table gives the names of a family.
    pub fn system<'t>(&self, tables: &'t Tables, family: &'t Family) -> Option<&'t System> {
        if self.except.contains(&family.name) {
            return None;
        }
        let named = |wanted: &String| {
            let mut systems = tables.systems_of(family);
            systems.find(|system| system.name == *wanted && system.marks.is_empty())
        };
        self.systems.iter().find_map(named)
    }

    /// The families that have such names.
    pub fn families<'t>(&self, tables: &'t Tables) -> Vec<&'t str> {
        let families = tables.families();
        let having = families.filter(|family| self.system(tables, family).is_some());
        having.map(|family| &*family.name).collect()
    }
}
