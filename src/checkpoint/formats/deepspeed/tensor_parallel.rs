//! How tensor-parallel ranks divide parameters, as AutoTP tells it: by pieces of each parameter, or by patterns of names.

use std::collections::{HashMap, HashSet};

use smallvec::SmallVec;

use super::Saved;
use super::model_states::ModelStates;
use crate::checkpoint::formats::torch_file::pickle::Object;
use crate::error::{Error, Result};
use crate::tensor::{Dims, Shape, SourceTensor, Tensor, Tile, contiguous};

/// The version of piece lists that is known.
const PIECES_VERSION: u64 = 1;

/// The patterns of `universal_checkpoint_info`, by the names of parameters.
#[derive(Debug, Default)]
pub struct Layout {
    /// Parameters of which each rank has a copy.
    replicated: HashSet<String>,
    /// Parameters that are divided by columns; all others are by rows.
    by_columns: HashSet<String>,
    /// Parameters that are put together in some other way.
    otherwise: HashSet<String>,
    vocabulary: HashSet<String>,
    vocabulary_size: Option<u64>,
    /// None for those whose pieces cannot be read.
    pieces: HashMap<String, Option<Pieces>>,
    /// A pattern that is more than one name.
    odd: Option<String>,
}

/// Which parts of a parameter each rank holds.
#[derive(Debug, Clone)]
struct Pieces {
    shape: Shape,
    /// Each with the rank that holds it.
    pieces: Vec<(usize, Piece)>,
}

/// A box of a parameter and where it lies in a rank's part of it.
#[derive(Debug, Clone)]
struct Piece {
    size: Dims,
    whole: Place,
    part: Place,
}

/// The first element and the steps between elements, in a flat array.
#[derive(Debug, Clone)]
struct Place {
    offset: u64,
    strides: Dims,
}

impl Layout {
    pub fn of(info: Object<'_>) -> Self {
        let mut odd = None;
        let mut names = |patterns: Vec<String>| -> HashSet<String> {
            let (plain, others): (Vec<_>, Vec<_>) = patterns
                .into_iter()
                .map(|own| plain(&own).ok_or(own))
                .partition(|own| own.is_ok());
            odd = odd
                .take()
                .or(others.into_iter().find_map(std::result::Result::err));
            plain.into_iter().flatten().collect()
        };
        let patterns = |key: &str| texts(info.get(key));
        let sub_params = info
            .get("parameter_with_sub_params")
            .into_iter()
            .flat_map(Object::items);
        let sub_params =
            sub_params.flat_map(|own| texts(own.get("patterns").or_else(|| own.field("patterns"))));
        let otherwise = [
            "parameter_to_average_patterns",
            "parameter_with_2_sub_params_cat_dim_0",
        ];
        let otherwise = otherwise.into_iter().flat_map(patterns).chain(sub_params);
        Self {
            replicated: names(patterns("tp_replicated_parameter_patterns")),
            by_columns: names(patterns("parameter_with_row_parallelism_patterns")),
            otherwise: names(otherwise.collect()),
            vocabulary: names(patterns("vocabulary_parameter_patterns")),
            vocabulary_size: info.get("original_vocab_size").and_then(Object::as_u64),
            pieces: info.get("affine_map").map_or(HashMap::new(), pieces),
            odd,
        }
    }
}

/// The parameters of all tensor-parallel ranks, joined.
pub fn join(first: &ModelStates, ranks: &[Vec<SourceTensor>]) -> Result<Saved> {
    let [own, others @ ..] = ranks else {
        return Ok(Saved::default());
    };
    let Some(layout) = &first.layout else {
        let reason = format!(
            "is of {} tensor-parallel ranks, and no universal_checkpoint_info tells how they divide parameters; save a gathered model",
            ranks.len()
        );
        return Err(Error::checkpoint(&first.path, reason));
    };
    let others: Vec<HashMap<&str, &SourceTensor>> =
        others.iter().map(|rank| by_name(rank)).collect();
    let mut saved = Saved::default();
    for tensor in own {
        let name = &*tensor.name;
        let rest = others
            .iter()
            .map(|rank| rank.get(name).and_then(|tensor| tensor.parts.first()));
        let parts = tensor
            .parts
            .first()
            .map(Some)
            .into_iter()
            .chain([])
            .chain(rest);
        let Some(parts) = parts
            .map(|part| part.cloned())
            .collect::<Option<Vec<Tensor>>>()
        else {
            return Err(first.refuse(name, "is in the files of some tensor-parallel ranks only: two saves are mixed; copy one of them whole"));
        };
        let joined = layout
            .join(name, &parts)
            .map_err(|reason| first.refuse(name, reason.to_string()))?;
        if joined.shape() == parts[0].shape() {
            saved.keep_copies(name, &parts);
        }
        saved
            .tensors
            .push(SourceTensor::whole(tensor.name.clone(), joined));
    }
    Ok(saved)
}

fn by_name(tensors: &[SourceTensor]) -> HashMap<&str, &SourceTensor> {
    tensors
        .iter()
        .map(|tensor| (&*tensor.name, tensor))
        .collect()
}

impl Saved {
    /// Keeps the copies of the smallest replicated parameter.
    fn keep_copies(&mut self, name: &str, parts: &[Tensor]) {
        let kept = self.copies.first().and_then(|copies| copies.parts.first());
        let is_smaller = parts
            .first()
            .zip(kept)
            .is_none_or(|(own, kept)| own.bytes() < kept.bytes());
        if is_smaller {
            self.copies = vec![SourceTensor::new(name, SmallVec::from(parts))];
        }
    }
}

impl Layout {
    fn join(&self, name: &str, parts: &[Tensor]) -> Result<Tensor> {
        if let Some(pieces) = self.pieces.get(name) {
            return match pieces {
                Some(pieces) => pieces.join(parts),
                None => unserved(
                    "is divided into pieces (affine_map) in a way that is not read; save a gathered model",
                ),
            };
        }
        if let Some(pattern) = &self.odd {
            return unserved(&format!(
                "may be one of {}, a pattern that is not read; save a gathered model",
                pattern.escape_debug()
            ));
        }
        if self.otherwise.contains(name) {
            return unserved(
                "is divided in sub-parameters (parameter_with_sub_params), which are not joined; save a gathered model",
            );
        }
        if self.replicated.contains(name) {
            return parts
                .first()
                .cloned()
                .ok_or(Error::Unserved("is held by no rank".to_owned()));
        }
        let joined = Tensor::concat(parts, usize::from(self.by_columns.contains(name)))?;
        let rows = joined.shape().dims().first().copied();
        match self.vocabulary.contains(name) && rows != self.vocabulary_size {
            true => unserved(
                "has a padded vocabulary (original_vocab_size), which is not read; save a gathered model",
            ),
            false => Ok(joined),
        }
    }
}

impl Pieces {
    /// The parameter as a cover of boxes, each out of one rank's part. Of replicas the first rank's counts.
    fn join(&self, parts: &[Tensor]) -> Result<Tensor> {
        let mut tiles: Vec<Tile> = Vec::with_capacity(self.pieces.len());
        let mut seen = HashSet::new();
        for (rank, piece) in &self.pieces {
            let Some(part) = parts.get(*rank) else {
                return unserved(
                    "has pieces (affine_map) of ranks that there are not; save a gathered model",
                );
            };
            let offsets = piece.whole.corner(&self.shape)?;
            if !seen.insert((offsets.clone(), piece.size.clone())) {
                continue;
            }
            let mut tensor = part.clone();
            for (dim, (start, size)) in piece
                .part
                .corner(part.shape())?
                .iter()
                .zip(&piece.size)
                .enumerate()
            {
                tensor = tensor.narrow(dim, *start, *size)?;
            }
            tiles.push(Tile { offsets, tensor });
        }
        Tensor::tiled(self.shape.clone(), tiles)
    }
}

impl Place {
    /// The indices of the first element in an array of that shape, whose rows this must step through.
    fn corner(&self, shape: &Shape) -> Result<Dims> {
        let strides = contiguous(0, shape).strides;
        if strides != self.strides {
            return unserved(
                "is divided into pieces (affine_map) that are no boxes of it; save a gathered model",
            );
        }
        let mut rest = self.offset;
        Ok(strides
            .iter()
            .map(|stride| {
                let index = rest / stride;
                rest %= stride;
                index
            })
            .collect())
    }
}

/// The pieces of every parameter by name, None for those that cannot be read.
fn pieces(map: Object<'_>) -> HashMap<String, Option<Pieces>> {
    let is_known = map
        .get("version")
        .is_none_or(|version| version.as_u64() == Some(PIECES_VERSION));
    let params = map.get("params").into_iter().flat_map(Object::entries);
    let one = |(pattern, param): (Object<'_>, Object<'_>)| {
        let pieces = of_param(param).filter(|_| is_known);
        Some((plain(pattern.as_str()?)?, pieces))
    };
    params.filter_map(one).collect()
}

fn of_param(param: Object<'_>) -> Option<Pieces> {
    let mut pieces = Vec::new();
    for (rank, own) in param.get("ranks")?.entries() {
        let rank = usize::try_from(rank.as_u64()?).ok()?;
        for piece in own.get("pieces")?.items() {
            let scale = piece.get("scale");
            if scale.is_some_and(|scale| scale.as_f64() != Some(1.0)) {
                return None;
            }
            let piece = Piece {
                size: piece.get("shape")?.as_sizes()?,
                whole: place(piece.get("source")?)?,
                part: place(piece.get("dest")?)?,
            };
            if piece.size.iter().all(|size| *size > 0) {
                pieces.push((rank, piece));
            }
        }
    }
    pieces.sort_by_key(|(rank, _)| *rank);
    Some(Pieces {
        shape: Shape::new(&param.get("logical_shape")?.as_sizes()?)?,
        pieces,
    })
}

fn place(object: Object<'_>) -> Option<Place> {
    Some(Place {
        offset: object.item(0)?.as_u64()?,
        strides: object.item(1)?.as_sizes()?,
    })
}

fn texts(list: Option<Object<'_>>) -> Vec<String> {
    let texts = list
        .into_iter()
        .flat_map(Object::items)
        .filter_map(Object::as_str);
    texts.map(str::to_owned).collect()
}

/// The name of a pattern that matches one name, as Python's `re.escape` makes it.
fn plain(pattern: &str) -> Option<String> {
    let escaped = pattern
        .strip_prefix('^')
        .unwrap_or(pattern)
        .strip_suffix('$')?;
    let mut name = String::with_capacity(escaped.len());
    let mut chars = escaped.chars();
    while let Some(char) = chars.next() {
        match char {
            '\\' => name.push(chars.next().filter(|next| !next.is_ascii_alphanumeric())?),
            '.' | '*' | '+' | '?' | '(' | ')' | '[' | ']' | '{' | '}' | '|' | '^' | '$' => {
                return None;
            }
            char => name.push(char),
        }
    }
    Some(name)
}

fn unserved<T>(reason: &str) -> Result<T> {
    Err(Error::Unserved(reason.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_one_name_are_that_name() {
        assert_eq!(
            plain(r"^model\.layers\.0\.a_b\-c$").as_deref(),
            Some("model.layers.0.a_b-c")
        );
        for other in [r"^model.norm$", r"^layers\.\d+$", r"^a", ".*", r"a(b)$"] {
            assert_eq!(plain(other), None, "{other}");
        }
    }

    #[test]
    fn corners_are_the_indices_of_an_offset() {
        let shape = Shape::new(&[4, 6]).unwrap();
        let place = |offset, strides: [u64; 2]| Place {
            offset,
            strides: strides.into(),
        };
        assert_eq!(*place(15, [6, 1]).corner(&shape).unwrap(), [2, 3]);
        assert!(place(15, [3, 1]).corner(&shape).is_err());
    }
}
