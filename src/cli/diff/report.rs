//! The text and the JSON of `diff`: the tensors that differ, layer by layer.

use std::collections::HashMap;
use std::fmt::{self, Display, Formatter};

use serde::Serialize;

use crate::text::one_line;
use crate::verify::{DifferentElements, Kind, Number, Pair};

#[derive(Debug, Serialize)]
pub struct Report {
    pub equal: bool,
    /// Whether elements were compared.
    values: bool,
    /// Tensors that are equal, as far as they were compared.
    equal_tensors: usize,
    layers: Vec<Layer>,
}

/// A numbered module, or one outside of them, in which tensors differ.
#[derive(Debug, Serialize)]
struct Layer {
    name: String,
    /// All tensors of the layer, of either side.
    tensors: usize,
    largest: Option<Number>,
    different: Vec<Pair>,
}

impl Report {
    pub fn of(pairs: Vec<Pair>, values: bool) -> Self {
        let mut layers: Vec<Layer> = Vec::new();
        let mut known: HashMap<String, usize> = HashMap::new();
        let mut equal_tensors = 0;
        for pair in pairs {
            equal_tensors += usize::from(pair.is_equal());
            let name = layer(&pair.name);
            match known.get(name).and_then(|at| layers.get_mut(*at)) {
                Some(layer) => layer.add(pair),
                None => {
                    known.insert(name.to_owned(), layers.len());
                    let mut layer = Layer::new(name);
                    layer.add(pair);
                    layers.push(layer);
                }
            }
        }
        layers.retain(|layer| !layer.different.is_empty());
        Self {
            equal: layers.is_empty(),
            values,
            equal_tensors,
            layers,
        }
    }

    fn different(&self) -> impl Iterator<Item = &Pair> {
        self.layers.iter().flat_map(|layer| &layer.different)
    }

    fn summary(&self) -> String {
        let count = |is: &dyn Fn(&Pair) -> bool| self.different().filter(|pair| is(pair)).count();
        let here = count(&|pair| pair.there.is_none());
        let there = count(&|pair| pair.here.is_none());
        let different = self.different().count() - here - there;
        let equal = match self.values {
            true => format!("{} equal", self.equal_tensors),
            false => format!("{} of the same type and shape", self.equal_tensors),
        };
        format!("{equal}, {different} different, {here} only in A, {there} only in B")
    }
}

impl Layer {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            tensors: 0,
            largest: None,
            different: Vec::new(),
        }
    }

    fn add(&mut self, pair: Pair) {
        self.tensors += 1;
        if pair.is_equal() {
            return;
        }
        let found = pair.elements.as_ref().and_then(|found| found.largest);
        if let Some(Number(found)) = found {
            let largest = self.largest.map_or(found, |Number(known)| known.max(found));
            self.largest = Some(Number(largest));
        }
        self.different.push(pair);
    }
}

/// The layer of a tensor: its name up to the first number, or the module that holds it.
fn layer(name: &str) -> &str {
    let is_number = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    let mut end = 0;
    for word in name.split('.') {
        end += word.len();
        if is_number(word) {
            return name.get(..end).unwrap_or(name);
        }
        end += 1;
    }
    name.rsplit_once('.').map_or(name, |(module, _)| module)
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.layers.iter().try_for_each(|layer| layer.fmt(f))?;
        writeln!(f, "{}", self.summary())
    }
}

impl Display for Layer {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (different, tensors) = (self.different.len(), self.tensors);
        let mut line = format!("{}: {different} of {tensors} tensors differ", self.name);
        if let Some(largest) = self.largest {
            line += &format!(", largest difference {largest}");
        }
        writeln!(f, "{}", one_line(&line))?;
        self.different.iter().try_for_each(|pair| {
            let inner = pair.name.strip_prefix(&self.name).unwrap_or(&pair.name);
            let inner = match inner.trim_start_matches('.') {
                "" => &pair.name,
                inner => inner,
            };
            writeln!(f, "  {}", one_line(&format!("{inner}: {}", said(pair))))
        })
    }
}

fn said(pair: &Pair) -> String {
    let shown = |kind: &Kind| format!("{} {:?}", kind.dtype, kind.shape);
    match (&pair.here, &pair.there) {
        (Some(here), None) => format!("only in A, {}", shown(here)),
        (None, Some(there)) => format!("only in B, {}", shown(there)),
        (Some(here), Some(there)) => {
            let kinds = (here != there).then(|| format!("{} is not {}", shown(here), shown(there)));
            let elements = pair.elements.as_ref().map(|found| values(found, here));
            kinds
                .into_iter()
                .chain(elements)
                .collect::<Vec<_>>()
                .join("; ")
        }
        (None, None) => String::new(),
    }
}

fn values(found: &DifferentElements, kind: &Kind) -> String {
    let all: u64 = kind.shape.iter().product();
    format!("{} of {all} elements, {found}", found.count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_ends_at_its_number() {
        for (name, expected) in [
            ("model.layers.12.self_attn.q_proj.weight", "model.layers.12"),
            ("model.embed_tokens.weight", "model.embed_tokens"),
            ("lm_head.weight", "lm_head"),
            ("weight", "weight"),
            ("0", "0"),
            ("a..b", "a."),
            ("", ""),
        ] {
            assert_eq!(layer(name), expected, "{name}");
        }
    }
}
