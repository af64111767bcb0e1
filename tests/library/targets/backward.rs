//! A table, run backwards on the tensors that it makes of a system's, gives the system's back, for every name that can be written and
//! every family that has it.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use smallvec::smallvec;

use ckptfs::mapping::{
    Config, Family, MappedTensor, Spelling, System, Tables, TargetNames, Written, apply, backward,
    expected, one_way,
};
use ckptfs::read::Reader;
use ckptfs::source::SourceFile;
use ckptfs::tensor::{Dtype, Shape, SourceTensor, Tensor, contiguous};

/// The sizes of a small model.
#[derive(Debug, Clone)]
struct Sizes {
    layers: u64,
    kv_heads: u64,
    groups: u64,
    half_head: u64,
    hidden: u64,
    intermediate: u64,
    experts: u64,
    dense: u64,
    extra: u64,
    lora: u64,
    bias: bool,
    step: u64,
}

fn sizes() -> impl Strategy<Value = Sizes> {
    let first = (1u64..4, 1u64..3, 1u64..4, 1u64..4, 1u64..6, 1u64..8);
    let second = (1u64..4, 0u64..3, 0u64..2, 0u64..3, any::<bool>(), 1u64..3);
    (first, second).prop_map(|(first, second)| {
        let (layers, kv_heads, groups, half_head, hidden, intermediate) = first;
        let (experts, dense, extra, lora, bias, step) = second;
        Sizes {
            layers,
            kv_heads,
            groups,
            half_head,
            hidden,
            intermediate,
            experts,
            dense,
            extra,
            lora,
            bias,
            step,
        }
    })
}

impl Sizes {
    fn config(&self, family: &Family, bias: bool) -> Config {
        let types = ["linear_attention", "full_attention"];
        let types = (0..self.layers).map(|layer| types[layer as usize % 2]);
        let value = json!({
            "layer_types": types.collect::<Vec<_>>(),
            "linear_num_key_heads": self.kv_heads,
            "linear_key_head_dim": self.half_head,
            "linear_num_value_heads": self.kv_heads * self.groups,
            "linear_value_head_dim": self.half_head + 1,
            "linear_conv_kernel_dim": 3,
            "model_type": family.model_types[0],
            "architectures": ["XForCausalLM"],
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.kv_heads * self.groups,
            "num_key_value_heads": self.kv_heads,
            "head_dim": 2 * self.half_head,
            "hidden_size": 4 * self.hidden,
            "intermediate_size": self.intermediate,
            "intermediate_size_mlp": self.intermediate + 1,
            "moe_intermediate_size": self.intermediate + 2,
            "shared_expert_intermediate_size": self.intermediate + 3,
            "vocab_size": 11,
            "num_experts": self.experts,
            "num_local_experts": self.experts,
            "n_routed_experts": self.experts,
            "n_shared_experts": 1,
            "first_k_dense_replace": self.dense,
            "num_nextn_predict_layers": self.extra,
            "q_lora_rank": self.lora,
            "kv_lora_rank": 3,
            "qk_rope_head_dim": 2,
            "qk_nope_head_dim": 4,
            "v_head_dim": 5,
            "decoder_sparse_step": self.step,
            "mlp_only_layers": [],
            "interleave_moe_layer_step": self.step,
            "attention_bias": bias,
            "mlp_bias": false,
            "tie_word_embeddings": false,
        });
        match value {
            Value::Object(values) => Config::new(values),
            _ => Config::new(Map::new()),
        }
    }
}

/// All tensors that the config promises, each with bytes of its own.
fn directory(family: &Family, config: &Config) -> (tempfile::NamedTempFile, Vec<MappedTensor>) {
    let promised = expected(family, config, usize::MAX / 4).unwrap();
    let shapes = promised.iter().filter_map(|promise| {
        let dims: Option<Vec<u64>> = promise.shape.iter().copied().collect();
        Some((Arc::from(&*promise.name), Shape::new(&dims?)?))
    });
    let shapes: Vec<(Arc<str>, Shape)> = shapes.collect();
    let total: u64 = shapes.iter().map(|(_, shape)| shape.elements()).sum();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let word = |number: u64| (number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as u16;
    let bytes: Vec<u8> = (0..total)
        .flat_map(|number| word(number).to_le_bytes())
        .collect();
    file.write_all(&bytes).unwrap();
    let source = SourceFile::open(&file.path().canonicalize().unwrap()).unwrap();
    let mut at = 0;
    let tensors = shapes.into_iter().map(|(name, shape)| {
        let layout = contiguous(at, &shape);
        at += 2 * shape.elements();
        let tensor = Tensor::stored(source.clone(), Dtype::BF16, shape, layout).unwrap();
        MappedTensor {
            sources: smallvec![name.clone()],
            name,
            tensor,
        }
    });
    let tensors = tensors.collect();
    (file, tensors)
}

type Contents = BTreeMap<String, (Vec<u64>, Vec<u8>)>;

fn contents(tensors: &[MappedTensor]) -> Contents {
    let content = |mapped: &MappedTensor| {
        let mut bytes = vec![0; mapped.tensor.bytes() as usize];
        Reader::default()
            .read_tensor_at(&mapped.tensor, 0, &mut bytes)
            .unwrap();
        let dims = mapped.tensor.shape().dims().to_vec();
        (mapped.name.to_string(), (dims, bytes))
    };
    tensors.iter().map(content).collect()
}

fn sources(tensors: &[MappedTensor]) -> Vec<SourceTensor> {
    let source =
        |mapped: &MappedTensor| SourceTensor::whole(mapped.name.clone(), mapped.tensor.clone());
    tensors.iter().map(source).collect()
}

/// Whether the system has names for the biases of attention, which the family's config may ask for.
fn has_bias(system: &System, family: &Family) -> bool {
    let made = |form: &str| system.rules.iter().any(|rule| rule.to.form() == *form);
    let mut tensors = family.tensors.iter().filter(|tensor| {
        let condition = tensor.condition();
        condition.is_some_and(|condition| condition.names().contains(&"attention_bias"))
    });
    system.identity || tensors.all(|tensor| made(&tensor.name.form))
}

/// The tensors of a directory, backwards, forwards and backwards again.
fn check(target: &TargetNames, system: &System, family: &Family, sizes: &Sizes) {
    let bias = sizes.bias && has_bias(system, family);
    let config = sizes.config(family, bias);
    let (_file, tensors) = directory(family, &config);
    let context = format!("{} {} {sizes:?}", target.name, family.name);
    let there = backward(system, family, &config, target.spelling, &tensors)
        .unwrap_or_else(|error| panic!("{context}: {error}"));
    let back = apply(system, family, &config, &sources(&there.tensors))
        .unwrap_or_else(|error| panic!("{context}: {error}"));
    assert!(back.unknown.is_empty(), "{context}: {:?}", back.unknown);
    let mut wanted = contents(&tensors);
    for (left, _) in &there.left {
        wanted.remove(&**left);
    }
    assert!(contents(&back.tensors) == wanted, "{context}");
    let again = backward(system, family, &config, target.spelling, &back.tensors)
        .unwrap_or_else(|error| panic!("{context}: {error}"));
    assert!(
        contents(&again.tensors) == contents(&there.tensors),
        "{context}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(24) })]
    #[test]
    fn tables_run_backwards_and_forwards_give_back_every_tensor(sizes in sizes()) {
        let tables = Tables::load(None).unwrap();
        for target in tables.targets() {
            for family in tables.families() {
                if let Some(system) = target.system(&tables, family) {
                    check(target, system, family, &sizes);
                }
            }
        }
    }
}

#[test]
fn tables_that_can_be_written_have_no_one_way_rules() {
    let tables = Tables::load(None).unwrap();
    for target in tables.targets() {
        assert!(!target.families(&tables).is_empty(), "{}", target.name);
        for family in tables.families() {
            if let Some(system) = target.system(&tables, family) {
                let mut one_way = one_way(system).into_iter();
                let found = one_way.find(|_| !system.identity);
                let found = found.map(|(rule, why)| format!("{}: {rule}: {why}", system.name));
                assert_eq!(found, None);
            }
        }
    }
}

fn sample() -> Sizes {
    Sizes {
        layers: 2,
        kv_heads: 1,
        groups: 3,
        half_head: 2,
        hidden: 2,
        intermediate: 5,
        experts: 2,
        dense: 1,
        extra: 1,
        lora: 2,
        bias: false,
        step: 1,
    }
}

fn written(names: &str, family: &str) -> (Contents, Contents, Written) {
    let tables = Tables::load(None).unwrap();
    let family = tables.family(family).unwrap();
    let target = tables
        .targets()
        .find(|target| target.name == names)
        .unwrap();
    let system = target.system(&tables, family).unwrap();
    let config = sample().config(family, false);
    let (_file, tensors) = directory(family, &config);
    let written = backward(system, family, &config, target.spelling, &tensors).unwrap();
    (contents(&tensors), contents(&written.tensors), written)
}

/// The law above holds as well where a tensor is cut at the wrong rows, if it is joined there again.
#[test]
fn a_fused_tensor_is_cut_where_its_parts_end() {
    let (directory, written, _) = written("torchtune", "phi3");
    let fused = &directory["model.layers.1.self_attn.qkv_proj.weight"].1;
    // Three query heads of four rows of 16 bytes, one key and one value head.
    for (name, rows) in [("q", 0..12), ("k", 12..16), ("v", 16..20)] {
        let (dims, bytes) = &written[&format!("layers.1.attn.{name}_proj.weight")];
        assert_eq!(*dims, [rows.end - rows.start, 8]);
        assert_eq!(
            bytes,
            &fused[16 * rows.start as usize..16 * rows.end as usize]
        );
    }
    let fused = &directory["model.layers.0.mlp.gate_up_proj.weight"].1;
    assert_eq!(written["layers.0.mlp.w3.weight"].1, fused[5 * 16..]);
}

#[test]
fn the_rows_of_a_head_become_neighbours() {
    let (directory, written, _) = written("torchtitan", "llama");
    let theirs = &directory["model.layers.0.self_attn.q_proj.weight"].1;
    let ours = &written["layers.0.attention.qkv_linear.wq.weight"].1;
    let row = |bytes: &[u8], number: usize| bytes[16 * number..16 * (number + 1)].to_vec();
    let head_dim = 4;
    for head in 0..3 {
        for (s, j) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let from = head * head_dim + s * head_dim / 2 + j;
            let to = head * head_dim + 2 * j + s;
            assert_eq!(row(ours, to), row(theirs, from));
        }
    }
}

#[test]
fn the_spelling_of_a_generation_is_its_own() {
    for (names, query, head) in [
        (
            "torchtitan",
            "layers.0.attention.qkv_linear.wq.weight",
            "lm_head.weight",
        ),
        (
            "torchtitan-0.2",
            "layers.0.attention.wq.weight",
            "output.weight",
        ),
        ("lingua", "layers.0.attention.wq.weight", "output.weight"),
    ] {
        let (_, written, _) = written(names, "llama");
        assert!(
            written.contains_key(query) && written.contains_key(head),
            "{names}"
        );
    }
    let (_, written, _) = written("torchtune", "gemma2");
    assert!(written.contains_key("norm.rms_norm.scale"));
}

#[test]
fn zeros_stand_for_what_torchtitan_wants_of_each_router() {
    let (.., written) = written("torchtitan", "qwen3_moe");
    let zeros: Vec<(&str, u64)> = written
        .zeros
        .iter()
        .map(|zeros| (&*zeros.name, zeros.rows))
        .collect();
    assert_eq!(
        zeros,
        [
            ("layers.0.moe.expert_bias_E", 2),
            ("layers.1.moe.expert_bias_E", 2)
        ]
    );
}

#[test]
fn modules_behind_the_last_layer_come_first_and_their_copies_stay_out() {
    let (directory, names, written) = written("torchtitan", "deepseek_v3");
    let theirs = &directory["model.layers.2.eh_proj.weight"];
    assert_eq!(&names["mtp_layers.0.eh_proj.weight"], theirs);
    let mut left: Vec<&str> = written.left.iter().map(|(name, _)| &**name).collect();
    left.sort_unstable();
    assert_eq!(
        left,
        [
            "model.layers.2.embed_tokens.weight",
            "model.layers.2.shared_head.head.weight"
        ]
    );
}

/// A table of the user's own, and one tensor of a directory, through it.
fn refused(rule: &str, dims: &[u64]) -> String {
    let table = format!(
        "[[family]]\nname = 'x'\nmodel_types = ['x']\nvariables = {{ layer = '2' }}\ntensors = [['a.{{layer}}.w', '4, 4'], ['b', '4']]\n[[system]]\nname = 's'\nfamilies = ['x']\nrules = [{rule}]\n"
    );
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(table.as_bytes()).unwrap();
    let tables = Tables::load(Some(file.path())).unwrap();
    let family = tables.family("x").unwrap();
    let system = tables.systems_of(family).next().unwrap();
    let source = tempfile::NamedTempFile::new().unwrap();
    source.as_file().set_len(1000).unwrap();
    let source = SourceFile::open(&source.path().canonicalize().unwrap()).unwrap();
    let shape = Shape::new(dims).unwrap();
    let layout = contiguous(0, &shape);
    let tensor = MappedTensor {
        name: "a.0.w".into(),
        tensor: Tensor::stored(source, Dtype::BF16, shape, layout).unwrap(),
        sources: smallvec!["a.0.w".into()],
    };
    let config = Config::new(Map::new());
    let written = backward(system, family, &config, Spelling::First, &[tensor]);
    written.unwrap_err().to_string()
}

#[test]
fn a_rule_that_cannot_be_run_backwards_is_named() {
    for (rule, reason) in [
        (
            "{ from = ['p', 'q'], to = 'a.{layer}.w', concat = 0 }",
            "one-way",
        ),
        (
            "{ from = 'p', to = 'a.{layer}.w', then = ['narrow 0, 0, 4'] }",
            "cannot be told",
        ),
        ("{ from = 'p', to = 'a.{2 * layer}.w' }", "cannot be solved"),
        (
            "{ from = 'p.{layer}', to = 'a.{layer}.w', ops = ['narrow 0, 0, d0 / 2'] }",
            "part of it is missing",
        ),
        (
            "{ from = 'p.{layer}', to = 'a.{layer}.w', ops = ['blocks 1, 3, 0, 1'] }",
            "part of it is missing",
        ),
        (
            "{ from = ['p', 'q'], to = 'a.{layer}.w', concat = 0, parts = ['1', '2'] }",
            "its parts have 3",
        ),
        (
            "{ from = 'p.{layer}', to = 'a.{layer}.w', ops = ['unrope 3'] }",
            "no heads of 3",
        ),
    ] {
        let error = refused(rule, &[4, 4]);
        assert!(
            error.contains(reason) && error.contains("table s"),
            "{rule}: {error}"
        );
        assert!(error.contains("-> a.{"), "{rule}: {error}");
    }
    let error = refused("{ from = 'p', to = 'b' }", &[4]);
    assert!(
        error.contains("a.0.w has no name in table s for family x"),
        "{error}"
    );
}
