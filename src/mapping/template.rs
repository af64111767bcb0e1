//! Names to be made: `model.layers.{layer + num_hidden_layers}.enorm.weight`.

use std::fmt;

use serde::Deserialize;

use super::expression::{Expression, Scope};

/// A name to be made: text with `{expression}` in it.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
pub struct Template {
    pieces: Vec<(String, Option<Expression>)>,
}

impl Template {
    /// Every name that decides what the text becomes.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let expressions = self
            .pieces
            .iter()
            .filter_map(|(_, expression)| expression.as_ref());
        expressions.flat_map(Expression::names)
    }

    /// The values that the expressions have in a name. `None` where no values give this name.
    pub fn values(&self, name: &str) -> Option<Vec<(&Expression, i64)>> {
        let mut rest = name;
        let mut values = Vec::new();
        for (plain, expression) in &self.pieces {
            rest = rest.strip_prefix(&**plain)?;
            if let Some(expression) = expression {
                let end = rest.find(|c: char| !c.is_ascii_digit());
                let (digits, tail) = rest.split_at(end.unwrap_or(rest.len()));
                values.push((expression, digits.parse().ok()?));
                rest = tail;
            }
        }
        rest.is_empty().then_some(values)
    }

    /// Whether an expression is more than a variable, such as `layer + num_hidden_layers`.
    pub fn has_arithmetic(&self) -> bool {
        let mut expressions = self.pieces.iter().filter_map(|(_, inner)| inner.as_ref());
        expressions.any(|expression| expression.as_name().is_none())
    }

    /// The form of the names that come out: `{}` for each expression.
    pub fn form(&self) -> String {
        let piece = |(plain, expression): &(String, Option<Expression>)| match expression {
            Some(_) => format!("{plain}{{}}"),
            None => plain.clone(),
        };
        self.pieces.iter().map(piece).collect()
    }

    /// The same with `start` put before it.
    pub fn with_start(mut self, start: &str) -> Self {
        self.pieces.insert(0, (start.to_owned(), None));
        self
    }

    /// The same with `new` in the place of the `old` that it ends in.
    pub fn with_end(&self, old: &str, new: &str) -> Option<Self> {
        let mut pieces = self.pieces.clone();
        let (plain, expression) = pieces.last_mut()?;
        let stem = plain.strip_suffix(old).filter(|_| expression.is_none())?;
        *plain = format!("{stem}{new}");
        Some(Self { pieces })
    }

    pub fn fill(&self, scope: &dyn Scope) -> std::result::Result<String, String> {
        let mut text = String::new();
        for (plain, expression) in &self.pieces {
            text.push_str(plain);
            if let Some(expression) = expression {
                text.push_str(&expression.evaluate(scope)?.to_string());
            }
        }
        Ok(text)
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pieces
            .iter()
            .try_for_each(|(plain, inner)| match inner {
                Some(expression) => write!(f, "{plain}{{{expression}}}"),
                None => f.write_str(plain),
            })
    }
}

impl TryFrom<String> for Template {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Self, String> {
        let pieces = text
            .split_inclusive('}')
            .map(|piece| match piece.split_once('{') {
                Some((plain, inner)) => {
                    let expression = inner
                        .strip_suffix('}')
                        .ok_or_else(|| format!("no }} in {piece:?}"))?;
                    Ok((plain.to_owned(), Some(expression.parse()?)))
                }
                None => Ok((piece.to_owned(), None)),
            })
            .collect::<std::result::Result<_, String>>()?;
        Ok(Self { pieces })
    }
}
