//! Checkpoints of a given size in the layouts of different systems, with noise for weights.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Side of the attention's square matrices, of which a page-sized piece is half a row of bf16.
const HIDDEN: u64 = 4096;
const EXPERT: u64 = 7168;
const EXPERTS: u64 = 2;
const VOCABULARY: u64 = 256;
const MIB: u64 = 1 << 20;

/// The form of the source, and so the work of its mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Hugging Face names behind `_orig_mod.`: bytes in another place, in the same order.
    Renamed,
    RenamedF32,
    /// The same names and bytes that `save_pretrained` writes.
    Untouched,
    /// Meta's names: query and key rows in rotary order.
    Meta,
    MetaF32,
    /// Two ranks: columns of o_proj and down_proj, rows of all others.
    Sharded,
    ShardedF32,
    /// Experts in one tensor, as transformers 5 holds them.
    Experts,
    /// Experts under each other, w2 transposed: Mixtral's first files.
    Transposed,
}

struct Array {
    name: String,
    shape: Vec<u64>,
    /// Where it begins in the whole tensor.
    offsets: Vec<u64>,
}

impl Source {
    pub fn write(self, dir: &Path, size: u64) -> PathBuf {
        let folder = dir.join(format!("{self:?}"));
        if folder.exists() {
            return folder;
        }
        fs::create_dir_all(&folder).expect("a folder");
        let layers = (size / self.layer_bytes()).max(1);
        let arrays = self.layout().arrays(layers);
        if self.layout() == Self::Sharded {
            for rank in 0..2 {
                let name = format!("shard-{:05}-model-00001-of-00001.safetensors", rank + 1);
                let shards: Vec<Array> = arrays.iter().map(|array| shard(array, rank)).collect();
                write_file(&folder.join(name), self.dtype(), &shards);
            }
        } else {
            write_file(&folder.join("model.safetensors"), self.dtype(), &arrays);
        }
        fs::write(folder.join("config.json"), self.config(layers)).expect("config.json");
        folder
    }

    fn dtype(self) -> &'static str {
        match self {
            Self::RenamedF32 | Self::MetaF32 | Self::ShardedF32 => "F32",
            _ => "BF16",
        }
    }

    /// The source of the same tensors in bf16.
    fn layout(self) -> Self {
        match self {
            Self::RenamedF32 => Self::Renamed,
            Self::MetaF32 => Self::Meta,
            Self::ShardedF32 => Self::Sharded,
            bf16 => bf16,
        }
    }

    fn layer_bytes(self) -> u64 {
        match self {
            Self::Experts | Self::Transposed => EXPERTS * 3 * HIDDEN * EXPERT * 2,
            _ => 7 * HIDDEN * HIDDEN * width(self.dtype()),
        }
    }

    fn arrays(self, layers: u64) -> Vec<Array> {
        let array = |name: String, shape: &[u64]| Array {
            name,
            shape: shape.to_vec(),
            offsets: vec![0; shape.len()],
        };
        let mut arrays = Vec::new();
        for (name, shape) in self.top() {
            arrays.push(array(name.to_owned(), &shape));
        }
        for layer in 0..layers {
            for (name, shape) in self.layer() {
                arrays.push(array(name.replace("{}", &layer.to_string()), &shape));
            }
        }
        if self == Self::Renamed {
            for array in &mut arrays {
                array.name.insert_str(0, "_orig_mod.");
            }
        }
        arrays.sort_by(|a, b| a.name.cmp(&b.name));
        arrays
    }

    fn top(self) -> [(&'static str, Vec<u64>); 3] {
        let names = match self {
            Self::Meta | Self::Transposed => {
                ["tok_embeddings.weight", "norm.weight", "output.weight"]
            }
            _ => [
                "model.embed_tokens.weight",
                "model.norm.weight",
                "lm_head.weight",
            ],
        };
        let table = vec![VOCABULARY, HIDDEN];
        let shapes = [table.clone(), vec![HIDDEN], table];
        let mut shapes = shapes.into_iter();
        names.map(|name| (name, shapes.next().unwrap_or_default()))
    }

    fn layer(self) -> Vec<(&'static str, Vec<u64>)> {
        let square = || vec![HIDDEN, HIDDEN];
        let small = || vec![256, HIDDEN];
        let experts = || vec![EXPERTS * EXPERT, HIDDEN];
        match self {
            Self::Meta => vec![
                ("layers.{}.attention.wq.weight", square()),
                ("layers.{}.attention.wk.weight", square()),
                ("layers.{}.attention.wv.weight", square()),
                ("layers.{}.attention.wo.weight", square()),
                ("layers.{}.feed_forward.w1.weight", square()),
                ("layers.{}.feed_forward.w2.weight", square()),
                ("layers.{}.feed_forward.w3.weight", square()),
                ("layers.{}.attention_norm.weight", vec![HIDDEN]),
                ("layers.{}.ffn_norm.weight", vec![HIDDEN]),
            ],
            Self::Experts => vec![
                ("model.layers.{}.self_attn.q_proj.weight", small()),
                ("model.layers.{}.self_attn.k_proj.weight", small()),
                ("model.layers.{}.self_attn.v_proj.weight", small()),
                ("model.layers.{}.self_attn.o_proj.weight", vec![HIDDEN, 256]),
                ("model.layers.{}.mlp.gate.weight", vec![EXPERTS, HIDDEN]),
                (
                    "model.layers.{}.mlp.experts.gate_up_proj",
                    vec![EXPERTS, 2 * EXPERT, HIDDEN],
                ),
                (
                    "model.layers.{}.mlp.experts.down_proj",
                    vec![EXPERTS, HIDDEN, EXPERT],
                ),
                ("model.layers.{}.input_layernorm.weight", vec![HIDDEN]),
                (
                    "model.layers.{}.post_attention_layernorm.weight",
                    vec![HIDDEN],
                ),
            ],
            Self::Transposed => vec![
                ("layers.{}.attention.wq.weight", vec![256, HIDDEN]),
                ("layers.{}.attention.wk.weight", small()),
                ("layers.{}.attention.wv.weight", small()),
                ("layers.{}.attention.wo.weight", vec![HIDDEN, 256]),
                (
                    "layers.{}.block_sparse_moe.gate.weight",
                    vec![EXPERTS, HIDDEN],
                ),
                ("layers.{}.block_sparse_moe.w1", experts()),
                ("layers.{}.block_sparse_moe.w2", experts()),
                ("layers.{}.block_sparse_moe.w3", experts()),
                ("layers.{}.attention_norm.weight", vec![HIDDEN]),
                ("layers.{}.ffn_norm.weight", vec![HIDDEN]),
            ],
            _ => vec![
                ("model.layers.{}.self_attn.q_proj.weight", square()),
                ("model.layers.{}.self_attn.k_proj.weight", square()),
                ("model.layers.{}.self_attn.v_proj.weight", square()),
                ("model.layers.{}.self_attn.o_proj.weight", square()),
                ("model.layers.{}.mlp.gate_proj.weight", square()),
                ("model.layers.{}.mlp.up_proj.weight", square()),
                ("model.layers.{}.mlp.down_proj.weight", square()),
                ("model.layers.{}.input_layernorm.weight", vec![HIDDEN]),
                (
                    "model.layers.{}.post_attention_layernorm.weight",
                    vec![HIDDEN],
                ),
            ],
        }
    }

    fn config(self, layers: u64) -> String {
        let (family, architecture, heads, ffn) = match self {
            Self::Experts | Self::Transposed => ("mixtral", "MixtralForCausalLM", 2, EXPERT),
            _ => ("llama", "LlamaForCausalLM", 32, HIDDEN),
        };
        format!(
            r#"{{"architectures": ["{architecture}"], "model_type": "{family}", "hidden_size": {HIDDEN},
"intermediate_size": {ffn}, "num_hidden_layers": {layers}, "num_attention_heads": {heads}, "num_key_value_heads": {heads},
"head_dim": 128, "num_local_experts": {EXPERTS}, "vocab_size": {VOCABULARY}, "tie_word_embeddings": false,
"rms_norm_eps": 1e-05, "torch_dtype": "bfloat16"}}"#
        )
    }
}

/// One of two ranks' half: columns where the real systems cut columns, else rows.
fn shard(array: &Array, rank: u64) -> Array {
    let is_row_parallel = array.name.contains("o_proj") || array.name.contains("down_proj");
    let dim = usize::from(is_row_parallel);
    let mut shape = array.shape.clone();
    let mut offsets = vec![0; shape.len()];
    shape[dim] /= 2;
    offsets[dim] = rank * shape[dim];
    Array {
        name: array.name.clone(),
        shape,
        offsets,
    }
}

/// A safetensors file, on disk when this returns.
fn write_file(path: &Path, dtype: &str, arrays: &[Array]) {
    let (mut entries, mut places, mut end) = (String::new(), Vec::new(), 0);
    for array in arrays {
        let start = end;
        end += array.shape.iter().product::<u64>() * width(dtype);
        let (name, shape) = (&array.name, &array.shape);
        entries += &format!(
            r#","{name}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{start},{end}]}}"#
        )
        .replace(", ", ",");
        places.push(format!(
            r#"\"{name}\":{{\"saved_offsets\":{:?}}}"#,
            array.offsets
        ));
    }
    let sharding = match path.to_string_lossy().contains("shard-") {
        true => format!(r#","DCP_SHARDING_INFO":"{{{}}}""#, places.join(",")),
        false => String::new(),
    };
    let mut header = format!(r#"{{"__metadata__":{{"format":"pt"{sharding}}}{entries}}}"#);
    while header.len() % 8 != 0 {
        header.push(' ');
    }
    let mut file = File::create(path).expect("a file for the data");
    let length = (header.len() as u64).to_le_bytes();
    file.write_all(&[&length, header.as_bytes()].concat())
        .expect("a header");
    let noise = noise();
    while end > 0 {
        let count = end.min(MIB);
        file.write_all(&noise[..count as usize]).expect("weights");
        end -= count;
    }
    file.sync_all().expect("data on disk");
}

fn width(dtype: &str) -> u64 {
    if dtype == "F32" { 4 } else { 2 }
}

/// Finite numbers in every float type.
fn noise() -> Vec<u8> {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1);
        (state >> 33) as u8 & 0xBF
    };
    (0..MIB).map(|_| next()).collect()
}
