//! The report of `inspect` on a run, as text and as JSON.

use std::fmt::{self, Display, Formatter};

use serde::Serialize;

use crate::error::Result;
use crate::parallel;
use crate::run::{Run, Save};
use crate::text::one_line;

#[derive(Debug, Serialize)]
pub struct RunReport {
    path: String,
    /// Where the link `latest` of a mount leads.
    latest: Option<String>,
    saves: Vec<SaveReport>,
}

#[derive(Debug, Serialize)]
struct SaveReport {
    name: String,
    number: Option<u64>,
    /// The formats of the weights, in the words of `--system`.
    layouts: Vec<&'static str>,
    is_complete: bool,
    /// Why it will not be complete any more.
    error: Option<String>,
}

impl RunReport {
    /// Reads the metadata of each save that has ended.
    pub fn of(run: &Run) -> Result<Self> {
        let names = run.names()?;
        let report = |name: &String| Some(SaveReport::of(run, run.save(name)?));
        let saves = parallel::map(parallel::usual_threads(), &names, report);
        let mut saves: Vec<SaveReport> = saves.into_iter().flatten().collect();
        saves.sort_by(|a, b| (a.number, &a.name).cmp(&(b.number, &b.name)));
        Ok(Self {
            path: run.path().display().to_string(),
            latest: run.latest()?.map(|save| save.model()),
            saves,
        })
    }
}

impl SaveReport {
    fn of(run: &Run, save: Save) -> Self {
        let fault = run.fault(&save);
        Self {
            name: save.name,
            number: save.number,
            layouts: save.layouts,
            is_complete: save.has_ended && fault.is_none(),
            error: fault.map(|fault| fault.to_string()),
        }
    }
}

impl Display for RunReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<10} {}", "run", one_line(&self.path))?;
        for save in &self.saves {
            let state = match (save.is_complete, &save.error) {
                (true, _) => "",
                (false, None) => ", incomplete",
                (false, Some(_)) => ", broken",
            };
            let layouts = save.layouts.join(" and ");
            writeln!(
                f,
                "{:<10} {} ({layouts}{state})",
                "save",
                one_line(&save.name)
            )?;
        }
        match &self.latest {
            Some(latest) => writeln!(f, "{:<10} {}", "latest", one_line(latest)),
            None => Ok(()),
        }
    }
}
