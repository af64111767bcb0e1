//! Files that a save numbers by rank or part: `mp_rank_01_003`, `model_world_size_4_rank_2.pt`, `consolidated.00.pth`.
//!
//! A pattern has `{}` in the place of each number. Names that fit it are kept under their numbers, and [`require`] refuses
//! a set that is not exactly the wanted grid: with `mp_rank_{}_{}` and `[0..2, 0..2]` it names `mp_rank_01_000` if that is
//! the one that is missing, and `mp_rank_02_000` as one too many.
//!
//! [`require`]: NumberedFiles::require

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::slice;

use smallvec::SmallVec;

use crate::error::{Error, INCOMPLETE, Result};

/// How many missing names a message shows.
const SHOWN: usize = 8;

/// Most files of one save. A larger number in a name counts no ranks.
pub const MOST: u64 = 1 << 16;

/// The numbers in a name, in the pattern's order.
pub type Numbers = SmallVec<[u64; 3]>;

/// The files of one folder that fit a pattern, by their numbers.
#[derive(Debug)]
pub struct NumberedFiles {
    folder: PathBuf,
    pattern: Pattern,
    files: BTreeMap<Numbers, String>,
}

/// A name's text before, between and after its numbers.
#[derive(Debug, PartialEq, Eq)]
struct Pattern(Vec<String>);

impl NumberedFiles {
    /// Keeps those of `names` that fit `pattern`.
    ///
    /// # Errors
    /// When two of them have the same numbers.
    pub fn parse(folder: &Path, pattern: &str, names: &[String]) -> Result<Self> {
        let pieces = pattern.split("{}").map(str::to_owned).collect();
        Self::fitting(folder, Pattern(pieces), names)
    }

    /// The same by the pattern of the first name that numbers a rank: `pytorch_model_fsdp_0_rank1.bin`.
    pub fn of_ranks(folder: &Path, names: &[String]) -> Result<Self> {
        let pattern = names.iter().find_map(|name| Pattern::of_rank(name));
        Self::fitting(folder, pattern.unwrap_or(Pattern(Vec::new())), names)
    }

    fn fitting(folder: &Path, pattern: Pattern, names: &[String]) -> Result<Self> {
        let mut files: BTreeMap<Numbers, String> = BTreeMap::new();
        for name in names {
            let Some(numbers) = pattern.numbers(name) else {
                continue;
            };
            if let Some(other) = files.insert(numbers, name.clone()) {
                let reason =
                    format!("{other} and {name} have the same numbers; move one of them away");
                return Err(Error::checkpoint(folder, reason));
            }
        }
        Ok(Self {
            folder: folder.to_owned(),
            pattern,
            files,
        })
    }

    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// The names in the order of their numbers.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.files.values().map(String::as_str)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&[u64], &str)> {
        self.files
            .iter()
            .map(|(numbers, name)| (&**numbers, &**name))
    }

    /// All numbers that stand at one place of the pattern, counted from 0.
    pub fn numbers(&self, place: usize) -> BTreeSet<u64> {
        let at = |numbers: &Numbers| numbers.get(place).copied();
        self.files.keys().filter_map(at).collect()
    }

    /// One more than the largest number at a place: what that place counts to, if no file is missing at the end.
    pub fn extent(&self, place: usize) -> u64 {
        let last = self.numbers(place).last().copied();
        last.map_or(0, |last| last.saturating_add(1))
    }

    /// Checks files that have one number each: those from 0 up to `count` must be there, and no other.
    ///
    /// # Errors
    /// As [`require`](Self::require).
    pub fn require_ranks(&self, count: u64) -> Result<()> {
        self.require(slice::from_ref(&(0..count)))
    }

    /// Checks that there is one file for each combination of numbers in `extent`, and no other.
    ///
    /// # Errors
    /// One that names the files which are missing, or the first that is too many.
    pub fn require(&self, extent: &[Range<u64>]) -> Result<()> {
        let sizes = extent
            .iter()
            .map(|range| range.end.saturating_sub(range.start));
        let count = sizes.fold(1u64, u64::saturating_mul);
        if count > MOST {
            let reason = format!(
                "its names count {count} ranks, more than the {MOST} that are read; look at their numbers"
            );
            return Err(Error::checkpoint(&self.folder, reason));
        }
        self.require_each((0..count).map(|index| combination(extent, index)).collect())
    }

    /// Checks that there is one file for each of `wanted`, and no other.
    ///
    /// # Errors
    /// As [`require`](Self::require).
    pub fn require_each(&self, wanted: BTreeSet<Numbers>) -> Result<()> {
        let missing = wanted.iter().filter(|own| !self.files.contains_key(*own));
        let missing: Vec<Numbers> = missing.cloned().collect();
        if !missing.is_empty() {
            return Err(self.missing(&missing, wanted.len()));
        }
        match self.files.iter().find(|(own, _)| !wanted.contains(*own)) {
            None => Ok(()),
            Some((_, name)) => {
                let reason = format!("{name} is of no rank of {}; move it away", wanted.len());
                Err(Error::checkpoint(&self.folder, reason))
            }
        }
    }

    fn missing(&self, missing: &[Numbers], count: usize) -> Error {
        let widths = self.widths();
        let shown = missing.iter().take(SHOWN);
        let shown: Vec<String> = shown.map(|own| self.pattern.name(own, &widths)).collect();
        let more = if missing.len() > SHOWN { ", ..." } else { "" };
        let reason = format!(
            "the files of {} of {count} ranks are missing, {}{more}: {INCOMPLETE}",
            missing.len(),
            shown.join(", ")
        );
        Error::checkpoint(&self.folder, reason)
    }

    /// How many digits the numbers have at least, told by those of the first file.
    fn widths(&self) -> Vec<usize> {
        let first = self.files.values().next();
        let digits = first.and_then(|name| self.pattern.digits(name));
        let digits = digits.into_iter().flatten();
        digits
            .map(|digits| {
                if digits.starts_with('0') {
                    digits.len()
                } else {
                    1
                }
            })
            .collect()
    }
}

impl Pattern {
    fn of_rank(name: &str) -> Option<Self> {
        const WORD: &str = "rank";
        let word = name.rfind(WORD)? + WORD.len();
        let digits = name.get(word..)?.trim_start_matches('_');
        let end = digits.find(|char: char| !char.is_ascii_digit())?;
        let (digits, back) = digits.split_at(end);
        let front = name.strip_suffix(back)?.strip_suffix(digits)?;
        let pattern = Self(vec![front.to_owned(), back.to_owned()]);
        pattern.numbers(name).map(|_| pattern)
    }

    /// The digits in the places of the numbers, if the name fits.
    fn digits<'n>(&self, name: &'n str) -> Option<Vec<&'n str>> {
        let (first, rest) = self.0.split_first()?;
        let mut left = name.strip_prefix(&**first)?;
        let mut all = Vec::new();
        for piece in rest {
            let end = left.find(|char: char| !char.is_ascii_digit());
            let (digits, behind) = left.split_at(end.unwrap_or(left.len()));
            all.push(digits);
            left = behind.strip_prefix(&**piece)?;
        }
        left.is_empty().then_some(all)
    }

    fn numbers(&self, name: &str) -> Option<Numbers> {
        let digits = self.digits(name)?;
        digits
            .into_iter()
            .map(|digits| digits.parse().ok())
            .collect()
    }

    fn name(&self, numbers: &[u64], widths: &[usize]) -> String {
        let mut pieces = self.0.iter();
        let mut name = pieces.next().cloned().unwrap_or_default();
        for (place, (number, piece)) in numbers.iter().zip(pieces).enumerate() {
            let width = widths.get(place).copied().unwrap_or(1);
            name += &format!("{number:0width$}{piece}");
        }
        name
    }
}

/// The combination number `index` of the numbers in `extent`, the last place running fastest.
fn combination(extent: &[Range<u64>], mut index: u64) -> Numbers {
    let mut numbers: Numbers = extent.iter().map(|range| range.start).collect();
    for (number, range) in numbers.iter_mut().zip(extent).rev() {
        let size = range.end.saturating_sub(range.start).max(1);
        *number += index % size;
        index /= size;
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn parse(pattern: &str, own: &[&str]) -> NumberedFiles {
        NumberedFiles::parse(Path::new("save"), pattern, &names(own)).unwrap()
    }

    fn refusal(files: &NumberedFiles, extent: &[Range<u64>]) -> String {
        files.require(extent).unwrap_err().to_string()
    }

    fn refusal_of_ranks(files: &NumberedFiles, count: u64) -> String {
        files.require_ranks(count).unwrap_err().to_string()
    }

    #[test]
    fn names_come_in_the_order_of_their_numbers() {
        let files = parse(
            "mp_rank_{}_{}",
            &[
                "mp_rank_00_010",
                "mp_rank_00_9",
                "mp_rank_00",
                "mp_rank_00_",
            ],
        );
        assert_eq!(
            files.names().collect::<Vec<_>>(),
            ["mp_rank_00_9", "mp_rank_00_010"]
        );
        assert_eq!((files.extent(0), files.extent(1)), (1, 11));
    }

    #[test]
    fn missing_files_are_named_as_they_would_be() {
        let files = parse(
            "consolidated.{}.pth",
            &["consolidated.00.pth", "consolidated.02.pth"],
        );
        assert!(
            refusal_of_ranks(&files, 3).contains("1 of 3 ranks are missing, consolidated.01.pth:")
        );
        let files = parse(
            "model_world_size_{}_rank_{}.pt",
            &["model_world_size_3_rank_1.pt"],
        );
        let line = refusal(&files, &[3..4, 0..3]);
        assert!(
            line.contains("model_world_size_3_rank_0.pt, model_world_size_3_rank_2.pt"),
            "{line}"
        );
        let files = parse("m_rank_{}.pt", &["m_rank_0.pt"]);
        assert!(refusal_of_ranks(&files, 100).contains("m_rank_8.pt, ..."));
    }

    #[test]
    fn files_beyond_the_extent_are_refused() {
        let files = parse("mp_rank_{}", &["mp_rank_00", "mp_rank_01", "mp_rank_02"]);
        assert!(refusal_of_ranks(&files, 2).contains("mp_rank_02 is of no rank of 2"));
        files.require_ranks(3).unwrap();
    }

    #[test]
    fn an_extent_that_no_save_has_is_refused_without_listing_it() {
        let files = parse("m_rank_{}.pt", &["m_rank_0.pt"]);
        assert!(refusal_of_ranks(&files, u64::MAX).contains("more than the 65536"));
        assert!(
            refusal(&parse("a{}b{}", &[]), &[0..1 << 40, 0..1 << 40])
                .contains("more than the 65536")
        );
    }

    #[test]
    fn two_names_of_the_same_numbers_are_refused() {
        let twice = NumberedFiles::parse(
            Path::new("save"),
            "mp_rank_{}",
            &names(&["mp_rank_0", "mp_rank_00"]),
        );
        assert!(
            twice
                .unwrap_err()
                .to_string()
                .contains("mp_rank_0 and mp_rank_00")
        );
    }

    #[test]
    fn the_first_name_that_numbers_a_rank_gives_the_pattern() {
        let ranks = |own: &[&str]| NumberedFiles::of_ranks(Path::new("save"), &names(own)).unwrap();
        let accelerate = ranks(&["pytorch_model_fsdp_0_rank0.bin"]);
        assert!(refusal_of_ranks(&accelerate, 2).contains("pytorch_model_fsdp_0_rank1.bin:"));
        ranks(&["m_rank_0.pt", "m_rank_1.pt"])
            .require_ranks(2)
            .unwrap();
        assert!(ranks(&["rank.pt", "model.pt"]).is_empty());
        assert!(ranks(&[]).is_empty());
    }

    #[test]
    fn a_full_grid_is_complete_and_lacks_no_combination() {
        let own: Vec<String> = (0..3)
            .flat_map(|a| (1..3).map(move |b| format!("r{a}-{b}")))
            .collect();
        let files =
            |own: &[String]| NumberedFiles::parse(Path::new("save"), "r{}-{}", own).unwrap();
        files(&own).require(&[0..3, 1..3]).unwrap();
        for (at, lost) in own.iter().enumerate() {
            let mut fewer = own.clone();
            fewer.remove(at);
            assert!(refusal(&files(&fewer), &[0..3, 1..3]).contains(&**lost));
        }
    }
}
