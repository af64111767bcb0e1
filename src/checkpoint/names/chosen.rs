//! The choice among entries that may each be the model: never a copy where there is an original, and none of several equals.

use std::borrow::Cow;

use super::judged::{Candidate, Judge, Spelling};
use super::several;
use super::words::is_copy;
use crate::error::Result;

impl Judge<'_> {
    /// The entry among several that hold a model each. `most` are all that may hold one, those with the most known names first.
    pub(super) fn chosen(&self, whole: &[&Candidate], most: &[&Candidate]) -> Result<Spelling> {
        let is_own = |each: &&&Candidate| !is_copy(&each.spelling.prefix);
        let mut own: Vec<&&Candidate> = whole.iter().filter(is_own).collect();
        if own.is_empty() {
            // A copy is no answer to an original that is damaged: its names are refused, and the copy can be asked for.
            if let Some(damaged) = damaged(whole, most) {
                return Ok(damaged.spelling.clone());
            }
            own = whole.iter().collect();
        }
        own.sort_by_key(|each| std::cmp::Reverse(self.count(&each.spelling)));
        let (first, rest) = (own.first(), own.get(1));
        let Some(first) = first else {
            return Ok(Spelling::default());
        };
        let count = self.count(&first.spelling);
        if let Some(other) = damaged(whole, most).filter(|each| !each.spelling.prefix.is_empty()) {
            return Err(several([&*first.spelling.prefix, &*other.spelling.prefix]));
        }
        if rest.is_some_and(|second| self.count(&second.spelling) * 2 >= count) {
            return Err(several(own.iter().map(|each| &*each.spelling.prefix)));
        }
        let all = whole
            .iter()
            .map(|each| self.count(&each.spelling))
            .sum::<usize>();
        let others = self.names.len().saturating_sub(all);
        let is_copy = is_copy(&first.spelling.prefix);
        match others > count || is_copy && others * 2 >= count {
            true => Err(several([&*first.spelling.prefix, "others"])),
            false => Ok(first.spelling.clone()),
        }
    }

    /// The copy of the model that stands beside one which is none.
    pub(super) fn copy_beside(&self, spelling: &Spelling) -> Option<String> {
        let mut prefixes = self.prefixes().into_iter().filter(|prefix| {
            is_copy(prefix) && !is_copy(&spelling.prefix) && !spelling.prefix.starts_with(prefix)
        });
        prefixes.find_map(|prefix| {
            let spelling = Spelling {
                prefix,
                wrapper: None,
            };
            let each = self.weighed(spelling);
            let prefix = each.spelling.prefix.trim_end_matches('.').to_owned();
            (each.of > 0 && each.known == each.of).then_some(prefix)
        })
    }

    fn count(&self, spelling: &Spelling) -> usize {
        let below = |name: &&Cow<'_, str>| name.starts_with(&spelling.prefix);
        self.names.iter().filter(below).count()
    }
}

/// The original that stands apart from all whole models, and of whose names as many are known as half of theirs or more.
fn damaged<'c>(whole: &[&Candidate], most: &[&'c Candidate]) -> Option<&'c Candidate> {
    let least = whole.iter().map(|each| each.known).max()?.div_ceil(2);
    let is_apart = |each: &Candidate| {
        let prefix = &each.spelling.prefix;
        let is_inside = |copy: &&Candidate| prefix.starts_with(&copy.spelling.prefix);
        let holds = |copy: &&Candidate| copy.spelling.prefix.starts_with(prefix);
        !is_copy(prefix)
            && !whole.iter().any(is_inside)
            && (prefix.is_empty() || !whole.iter().any(holds))
    };
    let mut originals = most.iter().filter(|each| is_apart(each));
    originals.find(|each| each.known >= least).copied()
}
