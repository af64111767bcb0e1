//! Tensors that are computed from others: the kernels, and the formula of each.
//!
//! All arithmetic is f32 unless a kernel says otherwise; the result is rounded once, to the type of the tensor, where no
//! other rounding is named. Every kernel but the cast takes and gives matrices: vectors, experts and transposed weights are
//! reshaped, stacked and transposed around it.

use super::dtype::Dtype;

/// An operation that makes the elements of a tensor from those of its inputs.
#[derive(Debug, Clone, PartialEq)]
pub enum Kernel {
    /// The elements of the one input, rounded.
    Cast,
    /// `acc = fma(x_i, w_i, acc)` over the inputs in order, then `acc / divisor`.
    Combine { weights: Box<[f32]>, divisor: f32 },
    /// `base + (((x_1 - base) * w_1 + (x_2 - base) * w_2) + ...)`, each step rounded. The base is the first input.
    Deltas { weights: Box<[f32]> },
    /// `base + delta * scale`, each step rounded. Inputs: base, delta.
    Shift { scale: f32 },
    /// `base + (left @ right) * scale`, the product a chain of `fma` over the rank. Inputs: base, left, right, magnitude.
    LowRank(LowRank),
    /// `code * scale` of the block in which the element lies. Inputs: codes, scales, then those that `Scaled` names.
    Scaled(Scaled),
    /// Codes of F8_E4M3, each the nearest to `x / scale` of its block. Inputs: the matrix, its `BlockScales`.
    BlockFp8,
    /// `max(largest magnitude / 448, 1e-12)` of each block of 128 rows and columns.
    BlockScales,
}

/// Side of a block that has one scale.
pub const BLOCK: u64 = 128;

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LowRank {
    pub scale: f32,
    /// Whether the update is rounded to the base's type before it is added.
    pub rounds_update: bool,
    /// Whether each row is brought to the length that the fourth input, one number for each row, gives (DoRA).
    pub has_magnitude: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scaled {
    pub code: Code,
    /// Rows and columns of a block.
    pub block: [u64; 2],
    pub global: Global,
    /// Whether the last input holds a zero point for each block, which is taken off the code.
    pub zero: Option<Zero>,
}

/// The numbers that codes stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// A byte each.
    E4M3,
    /// A byte each.
    I8,
    /// Two to a byte, the low half first.
    E2M1,
    /// Two to a byte, the low half first; stored 8 higher.
    U4,
    /// A byte each; stored 128 higher.
    U8,
}

/// A number that stands over the scales of all blocks: the input behind the scales, of one element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Global {
    None,
    /// `scale * global`.
    Times,
    /// `scale / global`.
    Over,
}

/// Storage of zero points.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Zero {
    /// A signed byte for each block.
    I8,
    /// Eight rows of blocks in a word, the lowest bits first; stored 8 higher.
    U4,
    /// Four rows of blocks in a word, the lowest bits first; stored 128 higher.
    U8,
}

impl Code {
    /// Codes in an element of the type in which they are stored.
    pub fn per_element(self, stored: Dtype) -> u64 {
        let bytes = stored.bytes().unwrap_or(1);
        match self {
            Self::E4M3 | Self::I8 | Self::U8 => bytes,
            Self::E2M1 | Self::U4 => 2 * bytes,
        }
    }
}

impl Kernel {
    /// The formula, with the inputs as `x`, `a`, `b` and so on, in the words of docs/computed.md.
    pub fn formula(&self) -> String {
        match self {
            Self::Cast => "cast".to_owned(),
            Self::Combine { weights, divisor } => format!(
                "combine(({}) / {divisor})",
                terms(weights, |i, w| format!("{w} * x{i}"))
            ),
            Self::Deltas { weights } => format!(
                "deltas(x0 + {})",
                terms(weights, |i, w| format!("{w} * (x{} - x0)", i + 1))
            ),
            Self::Shift { scale } => format!("shift(x0 + {scale} * x1)"),
            Self::LowRank(low_rank) => low_rank.formula(),
            Self::Scaled(scaled) => scaled.formula(),
            Self::BlockFp8 => "block_fp8(x0 / x1, blocks of 128 x 128)".to_owned(),
            Self::BlockScales => "block_scales(max |x0| / 448, blocks of 128 x 128)".to_owned(),
        }
    }

    /// The law that each element follows, in the words of docs/computed.md. `None` for a cast, which rounds alone.
    pub fn law(&self) -> Option<&'static str> {
        Some(match self {
            Self::Cast => return None,
            Self::Combine { .. } => {
                "average: acc = fma(x_i, w_i, acc) over the members in order, out = round(acc / sum of w)"
            }
            Self::Deltas { .. } => {
                "add-delta: out = round(base + ((x_1 - base) * w_1 + (x_2 - base) * w_2 + ...)), each step rounded to f32"
            }
            Self::Shift { .. } => "merge of a bias: out = round(b + delta * scale)",
            Self::LowRank(low_rank) => low_rank.law(),
            Self::Scaled(scaled) => scaled.law(),
            Self::BlockFp8 => {
                "quantize: code = e4m3(clamp(x / scale of its block, -448, 448)), to nearest even"
            }
            Self::BlockScales => "quantize: scale = max(amax of its block / 448, 1e-12)",
        })
    }

    /// Whether each element depends on those at the same place of the inputs alone.
    pub(super) fn is_elementwise(&self) -> bool {
        matches!(
            self,
            Self::Cast | Self::Combine { .. } | Self::Deltas { .. } | Self::Shift { .. }
        )
    }
}

fn terms(weights: &[f32], term: impl Fn(usize, f32) -> String) -> String {
    let terms = weights.iter().enumerate();
    let terms: Vec<String> = terms.map(|(i, weight)| term(i, *weight)).collect();
    terms.join(" + ")
}

impl LowRank {
    fn law(&self) -> &'static str {
        match (self.has_magnitude, self.rounds_update) {
            (true, _) => {
                "merge (DoRA): dot = fma(B, A, dot) over the rank, V = W + dot * scale, out = round(m / |row of V| * V), the length summed in f64"
            }
            (false, true) => {
                "merge: dot = fma(B, A, dot) over the rank, out = round(W + round(dot * scale))"
            }
            (false, false) => {
                "merge: dot = fma(B, A, dot) over the rank, out = round(W + dot * scale)"
            }
        }
    }

    fn formula(&self) -> String {
        let scale = self.scale;
        let update = match self.rounds_update {
            true => format!("round(x1 @ x2 * {scale})"),
            false => format!("x1 @ x2 * {scale}"),
        };
        match self.has_magnitude {
            true => format!("dora(x3 / |row| * (x0 + {update}))"),
            false => format!("low_rank(x0 + {update})"),
        }
    }
}

impl Scaled {
    fn law(&self) -> &'static str {
        match (self.zero, self.global) {
            (Some(_), _) => "dequantize: out = round((f32(code) - zero) * f32(scale of its block))",
            (None, Global::None) => "dequantize: out = round(f32(code) * f32(scale of its block))",
            (None, Global::Times) => {
                "dequantize: out = round(f32(code) * (f32(scale of its block) * global))"
            }
            (None, Global::Over) => {
                "dequantize: out = round(f32(code) * (f32(scale of its block) / global))"
            }
        }
    }

    fn formula(&self) -> String {
        let Self { code, block, .. } = self;
        let value = match self.zero {
            Some(_) => "(x0 - zero)",
            None => "x0",
        };
        let scale = match self.global {
            Global::None => "x1",
            Global::Times => "(x1 * x2)",
            Global::Over => "(x1 / x2)",
        };
        let [rows, columns] = block;
        format!("dequantize({value} * {scale}, {code:?} in blocks of {rows} x {columns})")
    }
}

impl Zero {
    /// Rows of blocks in an element of the type in which the zero points are stored.
    pub fn per_element(self) -> u64 {
        match self {
            Self::I8 => 1,
            Self::U4 => 8,
            Self::U8 => 4,
        }
    }

    pub(super) fn sides(self, [rows, columns]: [u64; 2]) -> [u64; 2] {
        [rows.div_ceil(self.per_element()), columns]
    }
}
