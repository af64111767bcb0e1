//! Many names in a few words: `layers.0-31.attention.{wk,wq}.weight`.

use std::collections::BTreeSet;

/// More words or stretches of numbers than these become a `*` or the ends alone.
const SHOWN: usize = 4;

/// Returns the common pattern of `names`, component by component.
pub fn pattern(names: &[&str]) -> String {
    let Some(first) = names.first() else {
        return String::new();
    };
    let split: Vec<Vec<&str>> = names.iter().map(|name| name.split('.').collect()).collect();
    let depth = first.split('.').count();
    if split.iter().any(|parts| parts.len() != depth) {
        return format!("{first} and {} more", names.len() - 1);
    }
    let column = |at: usize| component(&split.iter().map(|parts| parts[at]).collect());
    (0..depth).map(column).collect::<Vec<_>>().join(".")
}

fn component(words: &BTreeSet<&str>) -> String {
    let listed: Vec<&str> = words.iter().copied().collect();
    let numbers: Option<BTreeSet<u64>> = words.iter().map(|word| number(word)).collect();
    match (listed.as_slice(), numbers) {
        ([only], _) => (*only).to_owned(),
        (_, Some(numbers)) => stretches(&numbers),
        (some, None) if some.len() <= SHOWN => format!("{{{}}}", some.join(",")),
        _ => "*".to_owned(),
    }
}

/// The number that a component is, written without a sign or zeros in front.
pub fn number(word: &str) -> Option<u64> {
    let number: u64 = word.parse().ok()?;
    (number.to_string() == word).then_some(number)
}

/// `0-2,5` for 0, 1, 2 and 5.
pub fn stretches(numbers: &BTreeSet<u64>) -> String {
    let mut stretches: Vec<(u64, u64)> = Vec::new();
    for number in numbers {
        match stretches.last_mut() {
            Some((_, end)) if end.checked_add(1) == Some(*number) => *end = *number,
            _ => stretches.push((*number, *number)),
        }
    }
    let shown: Vec<String> = stretches.iter().map(|stretch| shown(*stretch)).collect();
    match shown.as_slice() {
        [first, second, .., last] if shown.len() > SHOWN => format!("{first},{second},…,{last}"),
        all => all.join(","),
    }
}

fn shown((start, end): (u64, u64)) -> String {
    match start == end {
        true => start.to_string(),
        false => format!("{start}-{end}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ_in_numbers_or_words() {
        let names = ["layers.0.wq.weight", "layers.1.wk.weight"];
        assert_eq!(pattern(&names), "layers.0-1.{wk,wq}.weight");
        assert_eq!(pattern(&["norm.weight"]), "norm.weight");
        assert_eq!(pattern(&["a.b", "c", "d"]), "a.b and 2 more");
        assert_eq!(pattern(&["a", "b", "c", "d", "e"]), "*");
        assert_eq!(pattern(&["x.00", "x.01"]), "x.{00,01}");
    }

    #[test]
    fn numbers_in_a_row_are_a_stretch() {
        let of = |numbers: &[u64]| stretches(&numbers.iter().copied().collect());
        assert_eq!(of(&[0, 1, 2, 5]), "0-2,5");
        assert_eq!(of(&[3]), "3");
        assert_eq!(of(&[0, 2, 4, 6, 8, 10]), "0,2,…,10");
        assert_eq!(
            of(&[u64::MAX - 1, u64::MAX]),
            format!("{}-{}", u64::MAX - 1, u64::MAX)
        );
    }
}
