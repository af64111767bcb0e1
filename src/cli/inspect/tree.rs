//! The modules of a model, where those that differ in their number alone are one.

use std::collections::{BTreeSet, HashMap};

use super::pattern::{number, stretches};
use super::report::TensorReport;

/// A deeper name keeps its rest in one piece.
const DEPTH: usize = 16;

/// A module or a tensor, or several that are alike.
#[derive(Debug)]
pub struct Node<'a> {
    /// With the names of the modules that hold nothing else.
    pub name: String,
    /// Modules that are alike.
    pub count: usize,
    /// Of all of them.
    pub bytes: u64,
    pub kind: Kind<'a>,
}

#[derive(Debug)]
pub enum Kind<'a> {
    Module(Vec<Node<'a>>),
    Tensor {
        /// One of those that are alike, assembled from chunks if any of them is.
        of: &'a TensorReport,
        /// Names in the checkpoint, of all of them.
        sources: Vec<&'a str>,
    },
}

/// A tensor below some module, and the rest of its name, if any.
type Below<'a> = (Option<&'a str>, &'a TensorReport);

pub fn tree(tensors: &[TensorReport]) -> Vec<Node<'_>> {
    let named = |tensor| (TensorReport::name(tensor), tensor);
    modules(tensors.iter().map(named), DEPTH)
}

/// The parts of one module, in the order of first appearance.
fn modules<'a>(
    tensors: impl Iterator<Item = (&'a str, &'a TensorReport)>,
    depth: usize,
) -> Vec<Node<'a>> {
    let mut children: Vec<(&str, Vec<Below<'a>>)> = Vec::new();
    let mut modules: HashMap<&str, usize> = HashMap::new();
    for (name, tensor) in tensors {
        let Some((module, rest)) = name.split_once('.').filter(|_| depth > 1) else {
            children.push((name, vec![(None, tensor)]));
            continue;
        };
        let known = modules.get(module).and_then(|at| children.get_mut(*at));
        match known {
            Some((_, below)) => below.push((Some(rest), tensor)),
            None => {
                modules.insert(module, children.len());
                children.push((module, vec![(Some(rest), tensor)]));
            }
        }
    }
    let nodes = children
        .into_iter()
        .map(|(name, below)| node(name, below, depth));
    folded(nodes).into_iter().map(Node::joined).collect()
}

fn node<'a>(name: &str, below: Vec<Below<'a>>, depth: usize) -> Node<'a> {
    let kind = match below.as_slice() {
        [(None, tensor)] => Kind::Tensor {
            of: tensor,
            sources: tensor.sources.iter().map(String::as_str).collect(),
        },
        _ => {
            let inner = below
                .iter()
                .filter_map(|(rest, tensor)| Some(((*rest)?, *tensor)));
            Kind::Module(modules(inner, depth - 1))
        }
    };
    Node {
        name: name.to_owned(),
        count: 1,
        bytes: below.iter().map(|(_, tensor)| tensor.bytes).sum(),
        kind,
    }
}

/// Numbered nodes that are alike become one, at the place of the first.
fn folded<'a>(nodes: impl Iterator<Item = Node<'a>>) -> Vec<Node<'a>> {
    let mut folded: Vec<(Node<'a>, BTreeSet<u64>)> = Vec::new();
    let mut alike: HashMap<String, usize> = HashMap::new();
    for node in nodes {
        let number = number(&node.name);
        let at = match number {
            Some(_) => *alike.entry(node.kind.signature()).or_insert(folded.len()),
            None => folded.len(),
        };
        match folded.get_mut(at) {
            Some((first, numbers)) => {
                numbers.extend(number);
                first.absorb(node);
            }
            None => folded.push((node, number.into_iter().collect())),
        }
    }
    let named = |(node, numbers): (Node<'a>, BTreeSet<u64>)| match numbers.len() {
        0 => node,
        count => Node {
            name: stretches(&numbers),
            count,
            ..node
        },
    };
    folded.into_iter().map(named).collect()
}

impl<'a> Node<'a> {
    /// With the node that alone is inside, if there is one.
    fn joined(self) -> Self {
        match self.kind {
            Kind::Module(mut children) if children.len() == 1 => {
                let inner = children.remove(0);
                Self {
                    name: format!("{}.{}", self.name, inner.name),
                    count: self.count * inner.count,
                    ..inner
                }
            }
            kind => Self { kind, ..self },
        }
    }

    /// Takes in a node of the same signature.
    fn absorb(&mut self, other: Self) {
        self.bytes += other.bytes;
        match (&mut self.kind, other.kind) {
            (Kind::Module(own), Kind::Module(others)) => own
                .iter_mut()
                .zip(others)
                .for_each(|(own, other)| own.absorb(other)),
            (
                Kind::Tensor { sources, of },
                Kind::Tensor {
                    sources: more,
                    of: other,
                },
            ) => {
                sources.extend(more);
                if other.steps().len() > of.steps().len() {
                    *of = other;
                }
            }
            (Kind::Module(_), Kind::Tensor { .. }) | (Kind::Tensor { .. }, Kind::Module(_)) => {}
        }
    }
}

impl Kind<'_> {
    /// Equal for nodes whose tensors have the same names, types, shapes and operations.
    fn signature(&self) -> String {
        match self {
            Self::Tensor { of, .. } => {
                format!("{} {:?} {}", of.dtype, of.shape, of.own_steps().join(" "))
            }
            Self::Module(children) => {
                let parts = children.iter();
                let parts = parts.map(|node| format!("{:?}: {}", node.name, node.kind.signature()));
                format!("{{{}}}", parts.collect::<Vec<_>>().join(", "))
            }
        }
    }
}
