//! Name patterns: `layers.{layer}.attention[.qkv_linear].wq.weight`, `(output|lm_head).weight`.
//!
//! `{layer}` stands for a component of digits, or for the digits behind `weight` or `bias`; `[...]` is optional, `(a|b)` is a choice. A name's digits are its only
//! variable part, so a name is looked up by its form, `layers.{}.attention.wq.weight`, and not matched pattern by pattern.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

pub use crate::checkpoint::form_of;
use crate::checkpoint::number;

/// Most bytes of a pattern, and most names that it stands for.
const LONGEST: usize = 1000;
const MOST_SPELLINGS: usize = 64;

/// The numbers that variables stand for.
pub type Bindings = BTreeMap<String, u64>;

/// Which of the names that a pattern stands for is written: of the systems' generations the first or the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Spelling {
    /// Of each choice the first, without options.
    First,
    /// Of each choice the last, with all options.
    Last,
}

/// A pattern without options or choices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    /// The pattern with `{}` for each component of digits.
    pub form: String,
    /// The part at each `{}`: a variable, or digits that must be these.
    places: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Variable(String),
    Digits(u64),
}

impl Pattern {
    /// All patterns that `text` stands for.
    pub fn parse(text: &str) -> Result<Vec<Self>, String> {
        if text.len() > LONGEST {
            return Err(format!(
                "a pattern of {} bytes, more than {LONGEST}",
                text.len()
            ));
        }
        Ok(expand(text)?
            .iter()
            .map(|plain| Self::plain(plain))
            .collect())
    }

    pub fn variables(&self) -> impl Iterator<Item = &str> {
        self.places.iter().filter_map(|place| match place {
            Piece::Variable(name) => Some(name.as_str()),
            Piece::Digits(_) => None,
        })
    }

    /// The variables' values, if the numbers of a name of this form fit.
    pub fn bind(&self, numbers: &[u64]) -> Option<Bindings> {
        let mut bindings = Bindings::new();
        for (place, number) in self.places.iter().zip(numbers) {
            match place {
                Piece::Digits(digits) if digits != number => return None,
                Piece::Digits(_) => {}
                Piece::Variable(name) => {
                    bindings.insert(name.clone(), *number);
                }
            }
        }
        Some(bindings)
    }

    /// The name in which the variables have these values. `None` where one has none.
    pub fn fill(&self, bindings: &Bindings) -> Option<String> {
        let value = |place: &Piece| match place {
            Piece::Digits(digits) => Some(*digits),
            Piece::Variable(name) => bindings.get(name).copied(),
        };
        let mut texts = self.form.split("{}");
        let mut name = texts.next().unwrap_or_default().to_owned();
        for (place, text) in self.places.iter().zip(texts) {
            name.push_str(&value(place)?.to_string());
            name.push_str(text);
        }
        Some(name)
    }

    /// The same with `new` in the place of the `old` that it ends in.
    pub fn with_end(&self, old: &str, new: &str) -> Option<Self> {
        let stem = self.form.strip_suffix(old)?;
        Some(Self {
            form: format!("{stem}{new}"),
            places: self.places.clone(),
        })
    }

    fn plain(text: &str) -> Self {
        let mut places = Vec::new();
        let components: Vec<String> = text
            .split('.')
            .map(|component| {
                if let Some((front, name, back)) = variable(component) {
                    places.push(Piece::Variable(name.to_owned()));
                    format!("{front}{{}}{back}")
                } else if let Some((front, number, back)) = number(component) {
                    places.push(Piece::Digits(number));
                    format!("{front}{{}}{back}")
                } else {
                    component.to_owned()
                }
            })
            .collect();
        Self {
            form: components.join("."),
            places,
        }
    }
}

/// All spellings of a name.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
pub struct Names(pub Vec<Pattern>);

impl Names {
    /// The one that is written.
    pub fn spelled(&self, spelling: Spelling) -> Option<&Pattern> {
        match spelling {
            Spelling::First => self.0.first(),
            Spelling::Last => self.0.last(),
        }
    }

    pub fn matches(&self, name: &str) -> bool {
        let (form, numbers) = form_of(name);
        self.0
            .iter()
            .any(|pattern| pattern.form == form && pattern.bind(&numbers).is_some())
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut texts = self.form.split("{}");
        f.write_str(texts.next().unwrap_or_default())?;
        for (place, text) in self.places.iter().zip(texts) {
            match place {
                Piece::Digits(digits) => write!(f, "{digits}{text}")?,
                Piece::Variable(name) => write!(f, "{{{name}}}{text}")?,
            }
        }
        Ok(())
    }
}

impl TryFrom<String> for Names {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Pattern::parse(&text).map(Self)
    }
}

/// A component's variable, and the text around it.
fn variable(component: &str) -> Option<(&str, &str, &str)> {
    let (front, rest) = component.split_once('{')?;
    let (name, back) = rest.split_once('}')?;
    Some((front, name, back))
}

fn expand(text: &str) -> Result<Vec<String>, String> {
    let Some(open) = text.find(['[', '(']) else {
        return Ok(vec![text.to_owned()]);
    };
    let close = if text[open..].starts_with('[') {
        ']'
    } else {
        ')'
    };
    let length = text[open..]
        .find(close)
        .ok_or_else(|| format!("no {close:?} in pattern {text:?}"))?;
    let (head, inner, tail) = (
        &text[..open],
        &text[open + 1..open + length],
        &text[open + length + 1..],
    );
    let choices: Vec<&str> = match close {
        ']' => vec!["", inner],
        _ => inner.split('|').collect(),
    };
    let tails = expand(tail)?;
    if choices.len() * tails.len() > MOST_SPELLINGS {
        return Err(format!(
            "pattern {text:?} stands for more than {MOST_SPELLINGS} names"
        ));
    }
    let join = |choice: &str| {
        tails
            .iter()
            .map(move |tail| format!("{head}{choice}{tail}"))
            .collect::<Vec<_>>()
    };
    Ok(choices.into_iter().flat_map(join).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_and_choices_multiply() {
        let forms: Vec<String> = Pattern::parse("a[.b].{layer}.(c|d)")
            .unwrap()
            .into_iter()
            .map(|pattern| pattern.form)
            .collect();
        assert_eq!(forms, ["a.{}.c", "a.{}.d", "a.b.{}.c", "a.b.{}.d"]);
    }

    #[test]
    fn literal_digits_must_be_these_and_variables_bind() {
        let pattern = &Pattern::parse("proj.0.{layer}.w1").unwrap()[0];
        let (form, numbers) = form_of("proj.0.12.w1");
        assert_eq!(form, pattern.form);
        assert_eq!(pattern.bind(&numbers).unwrap()["layer"], 12);
        assert_eq!(pattern.bind(&[1, 12]), None);
    }

    #[test]
    fn grouped_parameters_have_their_numbers_inside_a_component() {
        let pattern = &Pattern::parse("experts.linear_fc1.weight{expert}_w").unwrap()[0];
        let (form, numbers) = form_of("experts.linear_fc1.weight12_w");
        assert_eq!(form, pattern.form);
        assert_eq!(pattern.bind(&numbers).unwrap()["expert"], 12);
        assert_eq!(form_of("a.weight"), ("a.weight".to_owned(), Vec::new()));
        assert_eq!(form_of("a.weight_v").0, "a.weight_v");
        assert_eq!(form_of("a.weight01").0, "a.weight01");
        assert_eq!(form_of("a.w12").0, "a.w12");
        let literal = &Pattern::parse("experts.weight1").unwrap()[0];
        assert!(literal.bind(&form_of("experts.weight1").1).is_some());
        assert!(literal.bind(&form_of("experts.weight2").1).is_none());
    }

    #[test]
    fn the_first_spelling_has_no_options_and_the_last_has_all() {
        let names = Names::try_from("a[.b].{layer}.0.(c|d)".to_owned()).unwrap();
        let written = |spelling| {
            let bindings = Bindings::from([("layer".to_owned(), 3)]);
            names.spelled(spelling).unwrap().fill(&bindings).unwrap()
        };
        assert_eq!(written(Spelling::First), "a.3.0.c");
        assert_eq!(written(Spelling::Last), "a.b.3.0.d");
        assert_eq!(names.0[0].fill(&Bindings::new()), None);
        assert_eq!(names.0[0].to_string(), "a.{layer}.0.c");
    }

    #[test]
    fn padded_and_huge_numbers_are_plain_text() {
        assert_eq!(
            form_of("a.007.99999999999999999999").0,
            "a.007.99999999999999999999"
        );
    }
}
