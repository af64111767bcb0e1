//! Real checkpoints, carried by the project, against what their own frameworks' converters made of them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use ckptfs::output::{Split, VirtualFile};
use ckptfs::read::{ReadFile, Reader, read_at};
use ckptfs::source::Caching;
use ckptfs::tensor::Dtype;
use ckptfs::view::{DtypeChoice, Options, View};
use safetensors::SafeTensors;
use tempfile::TempDir;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name)
}

fn example() -> (PathBuf, Options) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/torchtitan-llama3");
    let options = Options {
        config_from: Some(root.join("hf_assets")),
        ..Options::default()
    };
    (root.join("checkpoint/step-10"), options)
}

fn bytes(file: &VirtualFile) -> Vec<u8> {
    let mut bytes = vec![0; file.size() as usize];
    read_at(file, 0, &mut bytes).unwrap();
    bytes
}

fn file<'v>(view: &'v View, path: &str) -> &'v VirtualFile {
    view.files.iter().find(|file| file.path() == path).unwrap()
}

/// Every tensor of the view's weight files, bitwise, and no other.
fn assert_equal(view: &View, expected: &Path) {
    let want = fs::read(expected).unwrap();
    let want = SafeTensors::deserialize(&want).unwrap();
    let mut names = Vec::new();
    for file in view
        .files
        .iter()
        .filter(|file| file.path().ends_with(".safetensors"))
    {
        let got = bytes(file);
        let got = SafeTensors::deserialize(&got).unwrap();
        for (name, tensor) in got.tensors() {
            assert_eq!(Some(&tensor), want.tensor(&name).ok().as_ref(), "{name}");
            names.push(name);
        }
    }
    names.sort_unstable();
    let mut all: Vec<_> = want.names().into_iter().map(str::to_owned).collect();
    all.sort_unstable();
    assert_eq!(names, all);
}

fn fixture_equals_its_reference(name: &str, config: Option<&str>) {
    let options = Options {
        config_from: config.map(|config| data(name).join(config)),
        ..Options::default()
    };
    let view = View::open(&data(name).join("source"), &options).unwrap();
    assert_equal(&view, &data(name).join("expected.safetensors"));
}

/// A repository's folder in a hub cache, whose snapshot has the files of `of`. Also the snapshot.
fn hub_cache(of: &Path) -> (TempDir, PathBuf) {
    let cache = tempfile::tempdir().unwrap();
    let snapshot = cache.path().join("snapshots/0123abcd");
    for folder in ["blobs", "refs", "snapshots/0123abcd"] {
        fs::create_dir_all(cache.path().join(folder)).unwrap();
    }
    fs::write(cache.path().join("refs/main"), "0123abcd").unwrap();
    for (number, entry) in fs::read_dir(of).unwrap().enumerate() {
        let blob = format!("blobs/{number:064x}");
        let entry = entry.unwrap();
        fs::copy(entry.path(), cache.path().join(&blob)).unwrap();
        symlink(format!("../../{blob}"), snapshot.join(entry.file_name())).unwrap();
    }
    (cache, snapshot)
}

#[test]
fn a_snapshot_of_a_hub_cache_is_a_source() {
    let (cache, snapshot) = hub_cache(&data("hf-bin-sharded").join("source"));
    for source in [&*snapshot, cache.path()] {
        let view = View::open(source, &Options::default()).unwrap();
        assert_equal(&view, &data("hf-bin-sharded/expected.safetensors"));
    }
    let (_cache, snapshot) = hub_cache(&data("meta-mp2").join("source"));
    let view = View::open(&snapshot, &Options::default()).unwrap();
    assert_equal(&view, &data("meta-mp2/expected.safetensors"));
}

#[test]
fn a_hub_cache_serves_as_config_from() {
    let (source, plain) = example();
    let (cache, snapshot) = hub_cache(plain.config_from.as_deref().unwrap());
    let shown = |options: &Options| {
        let view = View::open(&source, options).unwrap();
        let files = view.files.iter();
        files
            .map(|file| (file.path().to_owned(), bytes(file)))
            .collect::<Vec<_>>()
    };
    for config_from in [
        snapshot.join("config.json"),
        snapshot,
        cache.path().to_owned(),
    ] {
        let options = Options {
            config_from: Some(config_from),
            ..Options::default()
        };
        assert!(shown(&options) == shown(&plain));
    }
}

#[test]
fn torchtitan_equals_its_own_export() {
    let (source, options) = example();
    let view = View::open(&source, &options).unwrap();
    assert_eq!((&*view.system, &*view.family), ("torchtitan", "llama"));
    assert_equal(&view, &data("torchtitan-llama3/expected.safetensors"));
}

#[test]
fn uneven_dcp_chunks_equal_the_full_tensors() {
    fixture_equals_its_reference("dcp-uneven-w3", Some("config"));
}

#[test]
fn sharded_bin_files_with_tied_storages_equal_save_pretrained() {
    fixture_equals_its_reference("hf-bin-sharded", None);
}

#[test]
fn the_legacy_stream_equals_save_pretrained() {
    fixture_equals_its_reference("legacy-bin", None);
}

#[test]
fn meta_parts_join_and_un_interleave() {
    fixture_equals_its_reference("meta-mp2", None);
}

#[test]
fn copies_that_differ_between_ranks_are_told() {
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(data("meta-mp2").join("source")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    let warns = || {
        let view = View::open(copy.path(), &Options::default()).unwrap();
        let mut notes = view.notes.iter();
        notes.any(|note| note.is_warning && note.text.contains("files of two saves"))
    };
    assert!(!warns());
    let expected = fs::read(data("meta-mp2").join("expected.safetensors")).unwrap();
    let expected = SafeTensors::deserialize(&expected).unwrap();
    let tensors = expected.iter();
    let second = copy.path().join("consolidated.01.pth");
    let mut bytes = fs::read(&second).unwrap();
    for (_, norm) in tensors.filter(|(name, _)| name.ends_with("norm.weight")) {
        let length = norm.data().len();
        let mut places = bytes.windows(length);
        if let Some(at) = places.position(|window| window == norm.data()) {
            bytes[at] ^= 1;
        }
    }
    fs::write(&second, bytes).unwrap();
    assert!(warns());
}

#[test]
fn dtensors_of_two_ranks_equal_the_full_tensors() {
    fixture_equals_its_reference("verl-fsdp2-w2", None);
}

#[test]
fn any_shard_size_holds_the_same_tensors() {
    for limit in [1, 10_000, 50_000] {
        let (source, options) = example();
        let options = Options {
            split: Split::AtMost(limit),
            ..options
        };
        let view = View::open(&source, &options).unwrap();
        assert_equal(&view, &data("torchtitan-llama3/expected.safetensors"));
        let index: serde_json::Value =
            serde_json::from_slice(&bytes(file(&view, "model.safetensors.index.json"))).unwrap();
        assert_eq!(index["metadata"]["total_size"], view.bytes());
        let map = index["weight_map"].as_object().unwrap();
        assert_eq!(map.len(), view.tensors.len());
        assert!(
            map.values()
                .all(|shard| view.files.iter().any(|file| shard == file.path()))
        );
    }
}

#[test]
fn two_views_of_one_checkpoint_are_identical() {
    let (source, options) = example();
    let [a, b] = [(); 2].map(|()| View::open(&source, &options).unwrap());
    assert_eq!(a.files.len(), b.files.len());
    for (a, b) in a.files.iter().zip(&b.files) {
        assert_eq!((a.path(), bytes(a)), (b.path(), bytes(b)));
    }
}

#[test]
fn pieces_of_any_size_add_up_to_the_file() {
    let (source, options) = example();
    let view = View::open(&source, &options).unwrap();
    let whole = file(&view, "model.safetensors");
    let want = bytes(whole);
    let reader = Reader::default();
    for size in [1usize << 20, 131_072, 65_537, 4_096, 4_093] {
        let mut got = Vec::new();
        while got.len() < want.len() {
            let part = reader.read(whole, got.len() as u64, size, Caching::Kernel);
            got.extend_from_slice(&part.unwrap());
        }
        assert!(got == want, "pieces of {size}");
    }
}

#[test]
fn a_cast_rounds_every_weight_and_says_so_in_the_config() {
    let (source, options) = example();
    let options = Options {
        dtype: DtypeChoice::To(Dtype::BF16),
        ..options
    };
    let view = View::open(&source, &options).unwrap();
    let want = std::fs::read(data("torchtitan-llama3/expected.safetensors")).unwrap();
    let want = SafeTensors::deserialize(&want).unwrap();
    let got = bytes(file(&view, "model.safetensors"));
    let got = SafeTensors::deserialize(&got).unwrap();
    for (name, tensor) in want.tensors() {
        let rounded: Vec<u8> = tensor
            .data()
            .chunks(4)
            .flat_map(|bytes| {
                half::bf16::from_f32(f32::from_le_bytes(bytes.try_into().unwrap())).to_le_bytes()
            })
            .collect();
        assert!(got.tensor(&name).unwrap().data() == rounded, "{name}");
    }
    let config: serde_json::Value =
        serde_json::from_slice(&bytes(file(&view, "config.json"))).unwrap();
    assert_eq!(
        config.get("dtype").or(config.get("torch_dtype")).unwrap(),
        "bfloat16"
    );
}

#[test]
fn a_family_needs_a_table_and_no_code() {
    let folder = tempfile::tempdir().unwrap();
    let table = folder.path().join("nova.toml");
    let config = folder.path().join("config");
    std::fs::create_dir(&config).unwrap();
    let (source, _) = example();
    let theirs = std::fs::read_to_string(source.join("../../hf_assets/config.json")).unwrap();
    std::fs::write(
        config.join("config.json"),
        theirs.replace("\"llama\"", "\"nova\""),
    )
    .unwrap();
    std::fs::write(&table, NOVA).unwrap();
    let options = Options {
        config_from: Some(config),
        mapping: Some(table),
        ..Options::default()
    };
    let view = View::open(&source, &options).unwrap();
    let names: Vec<&str> = view.tensors.iter().map(|tensor| &*tensor.name).collect();
    assert_eq!(
        names[..3],
        ["nova.embed", "nova.0.attn.qkv", "nova.0.attn.out"]
    );
    let shape = |at: usize| view.tensors[at].tensor.shape().dims().to_vec();
    assert_eq!(shape(1), [128, 64]);
}

/// An invented model family: torchtitan's names for it, fused and transposed.
const NOVA: &str = r#"
[[family]]
name = "nova"
model_types = ["nova"]
head = "nova.head"
embedding = "nova.embed"
variables = { layer = "num_hidden_layers" }
defaults = { head_dim = "hidden_size / num_attention_heads", tie_word_embeddings = "0" }
tensors = [
  ["nova.embed", "vocab_size, hidden_size"],
  ["nova.{layer}.attn.qkv", "(num_attention_heads + 2 * num_key_value_heads) * head_dim, hidden_size"],
  ["nova.{layer}.attn.out", "hidden_size, hidden_size"],
  ["nova.{layer}.up_gate", "hidden_size, 2 * intermediate_size"],
  ["nova.{layer}.down", "hidden_size, intermediate_size"],
  ["nova.{layer}.norm", "2, hidden_size"],
  ["nova.norm", "hidden_size"],
  ["nova.head", "vocab_size, hidden_size"],
]

[[system]]
name = "torchtitan"
families = ["nova"]
rules = [
  { from = "tok_embeddings.weight", to = "nova.embed" },
  { from = ["layers.{layer}.attention[.qkv_linear].wq.weight", "layers.{layer}.attention[.qkv_linear].wk.weight", "layers.{layer}.attention[.qkv_linear].wv.weight"], to = "nova.{layer}.attn.qkv", concat = 0 },
  { from = "layers.{layer}.attention.wo.weight", to = "nova.{layer}.attn.out" },
  { from = ["layers.{layer}.feed_forward.w3.weight", "layers.{layer}.feed_forward.w1.weight"], to = "nova.{layer}.up_gate", ops = ["transpose"], concat = 1 },
  { from = "layers.{layer}.feed_forward.w2.weight", to = "nova.{layer}.down" },
  { from = ["layers.{layer}.attention_norm.weight", "layers.{layer}.ffn_norm.weight"], to = "nova.{layer}.norm", ops = ["reshape 1, d0"], concat = 0 },
  { from = "norm.weight", to = "nova.norm" },
  { from = "(output|lm_head).weight", to = "nova.head" },
]
"#;

#[test]
fn a_config_that_promises_a_trillion_layers_is_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let (source, _) = example();
    let theirs = std::fs::read_to_string(source.join("../../hf_assets/config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&theirs).unwrap();
    config["num_hidden_layers"] = 1_000_000_000_000u64.into();
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let options = Options {
        config_from: Some(folder.path().to_owned()),
        ..Options::default()
    };
    let error = View::open(&source, &options).unwrap_err().to_string();
    assert!(error.contains("num_hidden_layers"), "{error}");
}
