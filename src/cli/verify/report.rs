//! The text of `verify`: a line for each fault or difference, one for each law that computed tensors follow, and one that sums
//! up.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

use serde::Serialize;

use crate::text::one_line;
use crate::verify::{Difference, Finding, NonFinite, Outcome};

#[derive(Debug, Serialize)]
pub struct Report {
    pub tensors: Vec<Finding>,
    /// The head that is left out because it is tied.
    pub tied: Vec<Finding>,
    /// Files of the view that are not made of tensors.
    pub files: Vec<Finding>,
    /// Source files that hold checksums of themselves.
    pub sums: Vec<Finding>,
}

impl Report {
    pub fn is_good(&self) -> bool {
        self.all().all(Finding::is_good)
    }

    fn all(&self) -> impl Iterator<Item = &Finding> {
        let weights = self.tensors.iter().chain(&self.tied);
        weights.chain(&self.files).chain(&self.sums)
    }

    fn count(&self, is: impl Fn(&Outcome) -> bool) -> usize {
        self.all().filter(|finding| is(&finding.outcome)).count()
    }

    /// The laws of computed tensors, each with the number of tensors that follow it.
    fn laws(&self) -> BTreeMap<&'static str, usize> {
        let mut laws = BTreeMap::new();
        for law in self.tensors.iter().flat_map(|finding| &finding.laws) {
            *laws.entry(*law).or_default() += 1;
        }
        laws
    }

    fn summary(&self) -> String {
        let equal = self.count(|outcome| *outcome == Outcome::Equal);
        let different = self.count(|outcome| matches!(outcome, Outcome::Different(_)));
        let missing = self.count(|outcome| *outcome == Outcome::Missing);
        let extra = self.count(|outcome| *outcome == Outcome::Extra);
        let failed = self.count(|outcome| matches!(outcome, Outcome::Failed { .. }));
        let failures = match failed {
            0 => String::new(),
            _ => format!(", {failed} failed"),
        };
        let (tensors, files, sums) = (self.tensors.len(), self.files.len(), self.sums.len());
        match equal + different + missing + extra {
            0 => format!(
                "{tensors} tensors and {files} other files read, {sums} source files checked against their checksums{failures}"
            ),
            _ => format!(
                "{equal} equal, {different} different, {missing} missing, {extra} extra{failures}"
            ),
        }
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for finding in self.all() {
            if let Some(said) = said(&finding.outcome) {
                let name = format!("{}: ", finding.name);
                let said = said.strip_prefix(&name).unwrap_or(&said);
                writeln!(f, "{}", one_line(&format!("{name}{said}")))?;
            }
        }
        for (law, count) in self.laws() {
            writeln!(f, "{count} tensors are computed, {law}")?;
        }
        writeln!(f, "{}", self.summary())
    }
}

/// The line of an outcome, where it is worth one.
fn said(outcome: &Outcome) -> Option<String> {
    match outcome {
        Outcome::Equal | Outcome::Read { values: None } => None,
        Outcome::Read {
            values:
                Some(NonFinite {
                    nan: 0,
                    infinite: 0,
                }),
        } => None,
        Outcome::Read {
            values: Some(NonFinite { nan, infinite }),
        } => Some(format!("{nan} NaN, {infinite} infinite")),
        Outcome::Missing => Some("missing".to_owned()),
        Outcome::Extra => Some("extra".to_owned()),
        Outcome::Failed { reason } => Some(reason.clone()),
        Outcome::Different(Difference::Kind { here, there }) => {
            Some(format!("{here} is not {there}"))
        }
        Outcome::Different(Difference::Elements(found)) => {
            Some(format!("{} elements differ, {found}", found.count))
        }
    }
}
