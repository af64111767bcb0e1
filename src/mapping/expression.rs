//! Arithmetic over config.json: the sizes and conditions that tables speak of, such as `num_attention_heads * head_dim`
//! or `layer >= first_k_dense_replace and not (layer in mlp_only_layers)`.

use std::fmt;
use std::str::FromStr;

/// A parsed expression. Numbers are integers; a condition holds when it is not 0.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Deserialize)]
#[serde(try_from = "String")]
pub struct Expression {
    text: String,
    root: Node,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Node {
    Number(i64),
    Name(String),
    Not(Box<Node>),
    In(Box<Node>, String),
    Binary(Operator, Box<Node>, Box<Node>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Operator {
    Or,
    And,
    Equal,
    Unequal,
    Less,
    AtLeast,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

/// Most words and signs of an expression. It is parsed and evaluated by recursion, which more could drive too deep.
const MOST_TOKENS: usize = 100;

/// Operators by how tightly they bind, loosest first.
const LEVELS: [&[(&str, Operator)]; 5] = [
    &[("or", Operator::Or)],
    &[("and", Operator::And)],
    &[
        ("==", Operator::Equal),
        ("!=", Operator::Unequal),
        (">=", Operator::AtLeast),
        ("<", Operator::Less),
    ],
    &[("+", Operator::Add), ("-", Operator::Subtract)],
    &[
        ("*", Operator::Multiply),
        ("/", Operator::Divide),
        ("%", Operator::Remainder),
    ],
];

impl Operator {
    fn sign(self) -> &'static str {
        let mut all = LEVELS.into_iter().flatten();
        all.find(|(_, operator)| *operator == self)
            .map_or("", |(sign, _)| sign)
    }
}

/// Where names get their values.
pub trait Scope {
    /// The number called `name`; the error says what is missing.
    fn number(&self, name: &str) -> Result<i64, String>;
    /// The list of numbers called `name`.
    fn list(&self, name: &str) -> Result<Vec<i64>, String>;
}

impl Expression {
    pub fn evaluate(&self, scope: &dyn Scope) -> Result<i64, String> {
        evaluate(&self.root, scope)
    }

    /// The name that is the whole expression, if it is one.
    pub fn as_name(&self) -> Option<&str> {
        match &self.root {
            Node::Name(name) => Some(name),
            _ => None,
        }
    }

    /// The two names whose product is the whole expression, if it is one.
    pub fn as_product(&self) -> Option<[&str; 2]> {
        match &self.root {
            Node::Binary(Operator::Multiply, left, right) => match (&**left, &**right) {
                (Node::Name(left), Node::Name(right)) => Some([left, right]),
                _ => None,
            },
            _ => None,
        }
    }

    /// The variable and its value, where the whole expression is `value`: of a variable, or of one plus what `scope` tells.
    /// `None` where the expression is anything else.
    pub fn solve(
        &self,
        value: i64,
        scope: &dyn Scope,
    ) -> Result<Option<(&str, Option<u64>)>, String> {
        let (name, offset) = match &self.root {
            Node::Name(name) => (name, 0),
            Node::Binary(Operator::Add, left, right) => match &**left {
                Node::Name(name) => (name, evaluate(right, scope)?),
                _ => return Ok(None),
            },
            _ => return Ok(None),
        };
        let solved = value.checked_sub(offset);
        Ok(Some((name, solved.and_then(|value| value.try_into().ok()))))
    }

    /// The dimension `I` of `dI` or `dI / divisor`, where the whole expression is `value`, and the size of that dimension.
    /// `None` where the expression is anything else.
    pub fn solve_size(
        &self,
        value: u64,
        scope: &dyn Scope,
    ) -> Result<Option<(usize, u64)>, String> {
        let (name, divisor) = match &self.root {
            Node::Name(name) => (name, 1),
            Node::Binary(Operator::Divide, left, right) => match &**left {
                Node::Name(name) => (name, evaluate(right, scope)?),
                _ => return Ok(None),
            },
            _ => return Ok(None),
        };
        let size = u64::try_from(divisor)
            .ok()
            .and_then(|by| value.checked_mul(by));
        let dim = name
            .strip_prefix('d')
            .and_then(|digits| digits.parse().ok());
        Ok(dim.zip(size))
    }

    /// Whether the expression speaks of a size of the tensor, `d0`, `d1`, ...
    pub fn has_size(&self) -> bool {
        let is_size = |name: &str| {
            let digits = name.strip_prefix('d').unwrap_or_default();
            digits.parse::<usize>().is_ok()
        };
        self.names().into_iter().any(is_size)
    }

    /// Every name that the expression speaks of.
    pub fn names(&self) -> Vec<&str> {
        let mut names = Vec::new();
        let mut nodes = vec![&self.root];
        while let Some(node) = nodes.pop() {
            match node {
                Node::Number(_) => {}
                Node::Name(name) => names.push(&**name),
                Node::Not(inner) => nodes.push(inner),
                Node::In(item, list) => {
                    names.push(list);
                    nodes.push(item);
                }
                Node::Binary(_, left, right) => nodes.extend([&**left, &**right]),
            }
        }
        names
    }

    pub fn holds(&self, scope: &dyn Scope) -> Result<bool, String> {
        Ok(self.evaluate(scope)? != 0)
    }
}

fn evaluate(node: &Node, scope: &dyn Scope) -> Result<i64, String> {
    match node {
        Node::Number(number) => Ok(*number),
        Node::Name(name) => scope.number(name),
        Node::Not(inner) => Ok((evaluate(inner, scope)? == 0).into()),
        Node::In(item, list) => {
            let item = evaluate(item, scope)?;
            Ok(scope.list(list)?.contains(&item).into())
        }
        Node::Binary(Operator::Or, left, right) => match evaluate(left, scope)? {
            0 => evaluate(right, scope),
            true_value => Ok(true_value),
        },
        Node::Binary(Operator::And, left, right) => match evaluate(left, scope)? {
            0 => Ok(0),
            _ => evaluate(right, scope),
        },
        Node::Binary(operator, left, right) => {
            let (a, b) = (evaluate(left, scope)?, evaluate(right, scope)?);
            let told = |node: &Node, value: i64| match node {
                Node::Name(name) => format!("{name} ({value})"),
                _ => value.to_string(),
            };
            arithmetic(*operator, a, b).ok_or_else(|| {
                let (left, sign, right) = (told(left, a), operator.sign(), told(right, b));
                format!("{left} {sign} {right} is no whole number")
            })
        }
    }
}

fn arithmetic(operator: Operator, left: i64, right: i64) -> Option<i64> {
    match operator {
        Operator::Equal => Some((left == right).into()),
        Operator::Unequal => Some((left != right).into()),
        Operator::Less => Some((left < right).into()),
        Operator::AtLeast => Some((left >= right).into()),
        Operator::Add => left.checked_add(right),
        Operator::Subtract => left.checked_sub(right),
        Operator::Multiply => left.checked_mul(right),
        // An inexact quotient means that a shape and the config disagree.
        Operator::Divide => (left.checked_rem(right)? == 0).then_some(left / right),
        Operator::Remainder => left.checked_rem(right),
        Operator::Or | Operator::And => None,
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for Expression {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for Expression {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parser = Parser {
            tokens: tokens(text)?,
        };
        let root = parser.binary(0)?;
        match parser.tokens.last() {
            None => Ok(Self {
                text: text.to_owned(),
                root,
            }),
            Some(extra) => Err(format!("{extra:?} is out of place in {text:?}")),
        }
    }
}

/// The words and signs of an expression, last first.
fn tokens(text: &str) -> Result<Vec<String>, String> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let length = if is_word(first) {
            rest.find(|c| !is_word(c)).unwrap_or(rest.len())
        } else if ["==", "!=", ">="].iter().any(|sign| rest.starts_with(sign)) {
            2
        } else if "+-*/%<()".contains(first) {
            1
        } else {
            return Err(format!("{first:?} is out of place in {text:?}"));
        };
        let (token, tail) = rest.split_at(length);
        tokens.push(token.to_owned());
        rest = tail.trim_start();
    }
    if tokens.len() > MOST_TOKENS {
        return Err(format!(
            "an expression of {} words, more than {MOST_TOKENS}",
            tokens.len()
        ));
    }
    tokens.reverse();
    Ok(tokens)
}

struct Parser {
    tokens: Vec<String>,
}

impl Parser {
    fn binary(&mut self, level: usize) -> Result<Node, String> {
        let Some(operators) = LEVELS.get(level) else {
            return self.unary();
        };
        let mut left = self.binary(level + 1)?;
        loop {
            if level == 2 && self.take("in") {
                let list = self.tokens.pop().ok_or("a list must follow `in`")?;
                left = Node::In(Box::new(left), list);
                continue;
            }
            let Some((_, operator)) = operators.iter().find(|(sign, _)| self.take(sign)) else {
                return Ok(left);
            };
            let right = self.binary(level + 1)?;
            left = Node::Binary(*operator, Box::new(left), Box::new(right));
        }
    }

    fn unary(&mut self) -> Result<Node, String> {
        if self.take("not") {
            return Ok(Node::Not(Box::new(self.binary(2)?)));
        }
        let token = self.tokens.pop().ok_or("an expression ends early")?;
        if token == "(" {
            let inner = self.binary(0)?;
            return if self.take(")") {
                Ok(inner)
            } else {
                Err("a bracket is not closed".to_owned())
            };
        }
        match token.parse() {
            Ok(number) => Ok(Node::Number(number)),
            Err(_) if token.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') => {
                Ok(Node::Name(token))
            }
            Err(_) => Err(format!("{token:?} is out of place")),
        }
    }

    fn take(&mut self, token: &str) -> bool {
        self.tokens.pop_if(|next| next == token).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Example;

    impl Scope for Example {
        fn number(&self, name: &str) -> Result<i64, String> {
            match name {
                "hidden_size" => Ok(64),
                "layer" => Ok(3),
                _ => Err(format!("no {name}")),
            }
        }

        fn list(&self, _: &str) -> Result<Vec<i64>, String> {
            Ok(vec![0, 3])
        }
    }

    fn value(text: &str) -> Result<i64, String> {
        text.parse::<Expression>()?.evaluate(&Example)
    }

    #[test]
    fn products_bind_before_sums_before_comparisons_before_and() {
        assert_eq!(value("2 + 3 * hidden_size / (4 - 2)"), Ok(98));
        assert_eq!(value("layer >= 1 and not layer in dense or 0"), Ok(0));
        assert_eq!(value("layer % 2 == 1"), Ok(1));
        assert_eq!(value("not layer == 3 or layer < 4"), Ok(1));
    }

    #[test]
    fn variables_and_sizes_are_solved_for() {
        let solved = |text: &str, value| {
            let expression: Expression = text.parse().unwrap();
            let solved = expression.solve(value, &Example).unwrap();
            solved.map(|(name, value)| (name.to_owned(), value))
        };
        assert_eq!(solved("expert", 5), Some(("expert".to_owned(), Some(5))));
        assert_eq!(
            solved("expert + hidden_size", 66),
            Some(("expert".to_owned(), Some(2)))
        );
        assert_eq!(
            solved("expert + hidden_size", 6),
            Some(("expert".to_owned(), None))
        );
        assert_eq!(solved("2 * expert", 6), None);
        let size = |text: &str, value| {
            let expression: Expression = text.parse().unwrap();
            expression.solve_size(value, &Example).unwrap()
        };
        assert_eq!(size("d1", 7), Some((1, 7)));
        assert_eq!(size("d0 / hidden_size", 7), Some((0, 448)));
        assert_eq!(size("hidden_size", 7), None);
        assert_eq!(size("d0 + 1", 7), None);
    }

    #[test]
    fn what_cannot_be_computed_is_an_error() {
        assert!(value("7 / 2").is_err());
        assert!(value("7 / (3 - layer)").is_err());
        assert!(value("unknown + 1").is_err());
        assert!(value("9223372036854775807 * 2").is_err());
        for text in ["", "1 +", "(1", "1 1", "a $ b", ")"] {
            assert!(text.parse::<Expression>().is_err(), "{text}");
        }
    }
}
