//! The provenance of a tensor: the stored arrays under it and the operations in between.

use super::kernel::Kernel;
use super::node::{Expression, Tensor};
use super::shape::row_major;
use super::stored::Stored;

impl Tensor {
    /// Calls `visit` for every stored array under this tensor.
    pub fn each_stored<'a>(&'a self, visit: &mut dyn FnMut(&'a Stored)) {
        match self.expression() {
            Expression::Stored(stored) => visit(stored),
            Expression::Tiled(tiling) => tiling
                .tiles()
                .iter()
                .for_each(|tile| tile.tensor.each_stored(visit)),
            Expression::Narrow { of, .. }
            | Expression::Permute { of, .. }
            | Expression::Reshape { of, .. } => of.each_stored(visit),
            Expression::Computed { inputs, .. } => {
                inputs.iter().for_each(|input| input.each_stored(visit));
            }
        }
    }

    /// Calls `visit` for every computed tensor under this one, and for itself if it is one, innermost first.
    pub fn each_computed<'a>(&'a self, visit: &mut dyn FnMut(&'a Self)) {
        match self.expression() {
            Expression::Stored(_) => {}
            Expression::Tiled(tiling) => {
                let tiles = tiling.tiles().iter();
                tiles.for_each(|tile| tile.tensor.each_computed(visit));
            }
            Expression::Narrow { of, .. }
            | Expression::Permute { of, .. }
            | Expression::Reshape { of, .. } => of.each_computed(visit),
            Expression::Computed { inputs, .. } => {
                inputs.iter().for_each(|input| input.each_computed(visit));
                visit(self);
            }
        }
    }

    /// The stored array of which this tensor has some elements, in any order, and where it begins in its file; `None` unless it
    /// lies there row after row.
    pub fn stored_array(&self) -> Option<(&Self, u64)> {
        match self.expression() {
            Expression::Stored(stored) => {
                let layout = stored.layout(self.dtype(), self.shape()).ok()?;
                let is_dense = layout.strides == row_major(self.shape().dims());
                is_dense.then_some((self, layout.offset))
            }
            Expression::Narrow { of, .. }
            | Expression::Permute { of, .. }
            | Expression::Reshape { of, .. } => of.stored_array(),
            Expression::Tiled(_) | Expression::Computed { .. } => None,
        }
    }

    /// The laws that the elements of this tensor follow, each once, innermost first.
    pub fn laws(&self) -> Vec<&'static str> {
        let mut laws = Vec::new();
        self.each_computed(&mut |tensor| {
            let law = tensor.as_computed().and_then(|(kernel, _)| kernel.law());
            laws.extend(law.filter(|law| !laws.contains(law)));
        });
        laws
    }

    /// The operations between the file and this tensor, innermost first, such as `reshape[2, 8]`.
    pub fn operations(&self) -> Vec<String> {
        let own = match self.expression() {
            Expression::Stored(_) => return Vec::new(),
            Expression::Tiled(tiling) => {
                let mut inner = tiling
                    .tiles()
                    .first()
                    .map_or(Vec::new(), |tile| tile.tensor.operations());
                inner.push(format!("assemble({} chunks)", tiling.tiles().len()));
                return inner;
            }
            Expression::Narrow { dim, start, .. } => {
                format!(
                    "narrow(dim {dim}, {start}..{})",
                    start + self.shape().dims()[*dim]
                )
            }
            Expression::Permute { axes, .. } => format!("permute{axes:?}"),
            Expression::Reshape { .. } => format!("reshape{}", self.shape()),
            Expression::Computed { kernel, .. } => {
                format!("{} {}", kernel.formula(), self.dtype())
            }
        };
        let mut operations = self.child().map_or(Vec::new(), Self::operations);
        operations.push(own);
        operations
    }

    fn child(&self) -> Option<&Self> {
        match self.expression() {
            Expression::Stored(_) | Expression::Tiled(_) => None,
            Expression::Narrow { of, .. }
            | Expression::Permute { of, .. }
            | Expression::Reshape { of, .. } => Some(of),
            Expression::Computed { inputs, .. } => inputs.first(),
        }
    }

    /// Whether a cast lies between this tensor and the arrays or kernels under it.
    pub(super) fn has_cast(&self) -> bool {
        match self.expression() {
            Expression::Computed { kernel, .. } => *kernel == Kernel::Cast,
            Expression::Tiled(tiling) => tiling.tiles().iter().any(|tile| tile.tensor.has_cast()),
            _ => self.child().is_some_and(Self::has_cast),
        }
    }
}
