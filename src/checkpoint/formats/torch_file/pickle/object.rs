//! A typed view of a value in a pickle. Every question has an answer for every value: `None` where it does not apply.

use std::hash::{Hash, Hasher};
use std::slice;

use super::Pickle;
use super::arena::{Chain, Global, Id, Instance, NO_BATCH, Node};
use super::globals::Kind;
use crate::tensor::Dims;

/// A Python value, as data.
#[derive(Debug, Clone, Copy)]
pub struct Object<'a> {
    pickle: &'a Pickle,
    id: Id,
}

/// Values are equal when they are one value of one pickle, as with Python's `is`.
impl PartialEq for Object<'_> {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.pickle, other.pickle) && self.id == other.id
    }
}

impl Eq for Object<'_> {}

impl Hash for Object<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id.hash(state);
    }
}

impl<'a> Object<'a> {
    pub(super) fn new(pickle: &'a Pickle, id: Id) -> Self {
        Self { pickle, id }
    }

    pub fn is_none(self) -> bool {
        matches!(self.node(), Node::None)
    }

    pub fn as_str(self) -> Option<&'a str> {
        match self.node() {
            Node::Text(span) => Some(self.pickle.text(span)),
            _ => None,
        }
    }

    pub fn as_bool(self) -> Option<bool> {
        match self.node() {
            Node::Bool(value) => Some(value),
            _ => None,
        }
    }

    pub fn as_i64(self) -> Option<i64> {
        match self.node() {
            Node::Int(value) => Some(value),
            _ => None,
        }
    }

    pub fn as_u64(self) -> Option<u64> {
        self.as_i64()?.try_into().ok()
    }

    pub fn as_f64(self) -> Option<f64> {
        match self.node() {
            Node::Float(value) => Some(value),
            _ => None,
        }
    }

    /// The bytes of an integer too large for 64 bits, little-endian.
    pub fn as_long(self) -> Option<&'a [u8]> {
        match self.node() {
            Node::Long(span) => Some(self.pickle.span(span)),
            _ => None,
        }
    }

    /// A list or tuple of sizes, offsets or strides.
    pub fn as_sizes(self) -> Option<Dims> {
        self.is_sequence()
            .then(|| self.items().map(Self::as_u64).collect())?
    }

    /// Module and name of a class or function.
    pub fn global(self) -> Option<(&'a str, &'a str)> {
        let global = self.named()?;
        Some((
            self.pickle.text(global.module),
            self.pickle.text(global.name),
        ))
    }

    /// The maker of an object: its class, or the function that was to be called.
    pub fn callable(self) -> Option<Self> {
        Some(self.of(self.instance()?.callable))
    }

    /// The last component of a class's path, or of the path of an object's class. Paths change from one torch to the
    /// next; names do not.
    pub fn class_name(self) -> Option<&'a str> {
        let global = self.callable().unwrap_or(self).named()?;
        self.pickle.text(global.name).rsplit('.').next()
    }

    /// The arguments that an object is made from.
    pub fn args(self) -> Option<Self> {
        Some(self.of(self.instance()?.args))
    }

    pub fn arg(self, index: usize) -> Option<Self> {
        self.args()?.item(index)
    }

    /// State that an object is given after it is made.
    pub fn state(self) -> Option<Self> {
        let state = self.instance()?.state;
        (state != Id::UNSET).then(|| self.of(state))
    }

    /// An attribute of an object.
    pub fn field(self, name: &str) -> Option<Self> {
        self.state()?.attribute(name)
    }

    /// An attribute in a state, which is a dictionary, or a pair of one and another for `__slots__`.
    pub fn attribute(self, name: &str) -> Option<Self> {
        match self.node() {
            Node::Tuple(_) => self.items().filter_map(|part| part.get(name)).last(),
            _ => self.get(name),
        }
    }

    /// The id of something kept outside the pickle: a storage.
    pub fn persistent_id(self) -> Option<Self> {
        match self.node() {
            Node::Persistent(id) => Some(self.of(id)),
            _ => None,
        }
    }

    /// Whether this is a tuple or list, or one of their torch kin.
    pub fn is_sequence(self) -> bool {
        let is_set = self.kind() == Some(Kind::Set);
        !is_set && matches!(self.content(), Node::Tuple(_) | Node::List(_))
    }

    /// Whether this is a dictionary or an object that holds what a dictionary holds.
    pub fn is_mapping(self) -> bool {
        match self.node() {
            Node::Dict(_) => true,
            Node::Instance(_) => {
                let is_dictionary = matches!(self.kind(), Some(Kind::Dictionary(_)));
                is_dictionary || self.own_entries().next().is_some()
            }
            _ => false,
        }
    }

    /// Whether this can hold no other value.
    pub fn is_scalar(self) -> bool {
        !matches!(
            self.node(),
            Node::Tuple(_)
                | Node::List(_)
                | Node::Set(_)
                | Node::Dict(_)
                | Node::Instance(_)
                | Node::Persistent(_)
        )
    }

    /// The values in a tuple, list or set.
    pub fn items(self) -> Items<'a> {
        let grown = self.instance().map_or(NO_BATCH, |own| own.items.head);
        let (items, chains) = match self.content() {
            Node::Tuple(span) => (self.pickle.arena.items(span), [grown, NO_BATCH]),
            Node::List(chain) | Node::Set(chain) => (&[][..], [chain.head, grown]),
            _ => (&[][..], [grown, NO_BATCH]),
        };
        Items {
            pickle: self.pickle,
            items: items.iter(),
            chains,
        }
    }

    pub fn item(self, index: usize) -> Option<Self> {
        self.items().nth(index)
    }

    /// Keys and values of a dictionary or of an object that holds them, those first that it was made from.
    pub fn entries(self) -> impl Iterator<Item = (Self, Self)> + use<'a> {
        let source = match self.kind() {
            Some(Kind::Dictionary(index)) => self.arg(index),
            _ => None,
        };
        let pairs = source.filter(|_| self.class_name() != Some("Counter"));
        let pairs = pairs.into_iter().flat_map(Self::items);
        let pairs = pairs.filter_map(|pair| Some((pair.item(0)?, pair.item(1)?)));
        let copied = source.into_iter().flat_map(Self::own_entries);
        copied.chain(pairs).chain(self.own_entries())
    }

    fn own_entries(self) -> impl Iterator<Item = (Self, Self)> + use<'a> {
        let chain = match self.node() {
            Node::Dict(chain) => chain,
            _ => self.instance().map_or(Chain::EMPTY, |own| own.entries),
        };
        let mut items = Items {
            pickle: self.pickle,
            items: [].iter(),
            chains: [chain.head, NO_BATCH],
        };
        std::iter::from_fn(move || Some((items.next()?, items.next()?)))
    }

    /// The value under a key of a dictionary: the last one written, as in Python.
    pub fn get(self, key: &str) -> Option<Self> {
        let mine = self.entries().filter(|(name, _)| name.is_text(key));
        mine.last().map(|(_, value)| value)
    }

    fn is_text(self, text: &str) -> bool {
        matches!(self.node(), Node::Text(span) if self.pickle.span(span) == text.as_bytes())
    }

    /// Every value that this one refers to.
    pub fn children(self) -> impl Iterator<Item = Self> + use<'a> {
        let instance = self.instance();
        let parts = instance.map(|instance| [instance.callable, instance.args, instance.state]);
        let parts = parts.into_iter().flatten().filter(|id| *id != Id::UNSET);
        let entries = self.entries().flat_map(|(key, value)| [key, value]);
        parts
            .map(move |id| self.of(id))
            .chain(self.items())
            .chain(entries)
    }

    /// The node, where an object that is a sequence counts as the one that it is made from.
    fn content(self) -> Node {
        let node = self.node();
        let Some((Kind::Sequence | Kind::Set, args)) = self.kind().zip(self.args()) else {
            return node;
        };
        match (args.item(0), args.item(1)) {
            (None, _) => args.node(),
            (Some(only), None) => only.node(),
            (Some(_), Some(_)) => node,
        }
    }

    /// The kind of an object's class.
    fn kind(self) -> Option<Kind> {
        self.callable()?.named().map(|class| class.kind)
    }

    fn named(self) -> Option<&'a Global> {
        match self.node() {
            Node::Global(index) => self.pickle.arena.global(index),
            _ => None,
        }
    }

    fn node(self) -> Node {
        self.pickle.arena.node(self.id)
    }

    fn instance(self) -> Option<&'a Instance> {
        match self.node() {
            Node::Instance(index) => self.pickle.arena.instance(index),
            _ => None,
        }
    }

    fn of(self, id: Id) -> Self {
        Self { id, ..self }
    }
}

/// The values of a container, in order.
#[derive(Debug, Clone)]
pub struct Items<'a> {
    pickle: &'a Pickle,
    items: slice::Iter<'a, Id>,
    /// Where the batches go on, and where they go on after that.
    chains: [u32; 2],
}

impl<'a> Iterator for Items<'a> {
    type Item = Object<'a>;

    fn next(&mut self) -> Option<Object<'a>> {
        loop {
            if let Some(id) = self.items.next() {
                return Some(Object::new(self.pickle, *id));
            }
            let [next, then] = self.chains;
            let Some(batch) = self.pickle.arena.batch(next) else {
                self.pickle.arena.batch(then)?;
                self.chains = [then, NO_BATCH];
                continue;
            };
            self.items = self.pickle.arena.items(batch.items).iter();
            self.chains = [batch.next, then];
        }
    }
}
