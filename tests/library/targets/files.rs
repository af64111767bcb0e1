//! The files of a DCP and of `torch.save`: every byte at every offset, and what our own readers find in them.

use std::fs;
use std::io::Write;

use proptest::prelude::*;

use ckptfs::checkpoint;
use ckptfs::output::{Content, Dcp, Item, VirtualFile, dcp_files, torch_file, torch_shards};
use ckptfs::read::{ReadFile, Reader, read_at};
use ckptfs::source::{Caching, SourceFile};
use ckptfs::tensor::{Dtype, Shape, Tensor, contiguous};

/// Items with these types and shapes, each with bytes of its own; the last shares the first one's tensor.
fn items(shapes: &[(Dtype, Vec<u64>)]) -> (tempfile::NamedTempFile, Vec<Item>) {
    let shapes: Vec<(Dtype, Shape)> = shapes
        .iter()
        .map(|(dtype, dims)| (*dtype, Shape::new(dims).unwrap()))
        .collect();
    let bytes = |dtype: Dtype, shape: &Shape| shape.elements() * dtype.bytes().unwrap();
    let total: u64 = shapes
        .iter()
        .map(|(dtype, shape)| bytes(*dtype, shape))
        .sum();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let byte = |number: u64| (number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8;
    file.write_all(&(0..total).map(byte).collect::<Vec<u8>>())
        .unwrap();
    let source = SourceFile::open(&file.path().canonicalize().unwrap()).unwrap();
    let mut at = 0;
    let mut items: Vec<Item> = Vec::new();
    for (number, (dtype, shape)) in shapes.into_iter().enumerate() {
        let length = bytes(dtype, &shape);
        // Each third one transposed, where that can be.
        let tensor = match (number % 3, shape.dims()) {
            (2, [rows, columns]) => {
                let turned = Shape::new(&[*columns, *rows]).unwrap();
                let layout = contiguous(at, &turned);
                let tensor = Tensor::stored(source.clone(), dtype, turned, layout).unwrap();
                tensor.transpose().unwrap()
            }
            _ => {
                let layout = contiguous(at, &shape);
                Tensor::stored(source.clone(), dtype, shape, layout).unwrap()
            }
        };
        at += length;
        items.push(item(&format!("t{number}.weight"), tensor, None));
    }
    let first = items[0].tensor().unwrap().clone();
    items.push(item("tied.weight", first, Some(0)));
    (file, items)
}

fn item(name: &str, tensor: Tensor, shares: Option<usize>) -> Item {
    Item {
        name: name.into(),
        content: Content::Tensor(tensor),
        sources: Default::default(),
        shares,
    }
}

fn zeros(rows: u64) -> Item {
    Item {
        name: "zeros".into(),
        content: Content::Zeros(Dtype::F32, Shape::new(&[rows]).unwrap()),
        sources: Default::default(),
        shares: None,
    }
}

fn whole(file: &VirtualFile) -> Vec<u8> {
    let mut bytes = vec![0; file.size() as usize];
    read_at(file, 0, &mut bytes).unwrap();
    bytes
}

/// Writes the files to a folder, and compares what our reader finds there with the items.
fn check(files: &[VirtualFile], items: &[Item], open: &str) {
    let folder = tempfile::tempdir().unwrap();
    for file in files {
        fs::write(folder.path().join(file.path()), whole(file)).unwrap();
    }
    let found = checkpoint::open(&folder.path().join(open), None).unwrap();
    let mut names: Vec<&str> = found.tensors.iter().map(|tensor| &*tensor.name).collect();
    names.sort_unstable();
    let mut wanted: Vec<&str> = items.iter().map(|item| &*item.name).collect();
    wanted.sort_unstable();
    assert_eq!(names, wanted);
    for item in items {
        let name = &*item.name;
        let found = found
            .tensors
            .iter()
            .find(|tensor| *tensor.name == *name)
            .unwrap();
        let found = &found.parts[0];
        assert_eq!((found.dtype(), found.shape()), (item.dtype(), item.shape()));
        let bytes = |tensor: &Tensor| {
            let mut bytes = vec![0; tensor.bytes() as usize];
            Reader::default()
                .read_tensor_at(tensor, 0, &mut bytes)
                .unwrap();
            bytes
        };
        match item.tensor() {
            Some(tensor) => assert!(bytes(tensor) == bytes(found), "{name}"),
            None => assert!(bytes(found).iter().all(|byte| *byte == 0), "{name}"),
        }
    }
}

fn shapes() -> impl Strategy<Value = Vec<(Dtype, Vec<u64>)>> {
    let dtypes = [
        Dtype::BF16,
        Dtype::F32,
        Dtype::F16,
        Dtype::F64,
        Dtype::I64,
        Dtype::I8,
        Dtype::Bool,
        Dtype::F8_E4M3,
        Dtype::U16,
    ];
    let shape = prop::collection::vec(1u64..9, 0..4);
    prop::collection::vec((prop::sample::select(dtypes.to_vec()), shape), 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) })]
    #[test]
    fn a_dcp_holds_every_tensor_whatever_its_chunks_and_files(
        shapes in shapes(),
        chunk_size in 1u64..400,
        file_size in 1u64..4000,
        nested in any::<bool>(),
    ) {
        let (_source, mut items) = items(&shapes);
        items.push(zeros(5));
        let root = if nested { "model" } else { "" };
        let dcp = Dcp { root, chunk_size, file_size };
        let files = dcp_files(&items, &dcp);
        for file in files.iter().filter(|file| file.path().ends_with(".distcp")) {
            let bytes = whole(file);
            prop_assert_eq!(&bytes[..4], b"PK\x03\x04");
            let sums = file.checksums();
            for sum in sums {
                for field in sum.fields {
                    let field = field as usize;
                    prop_assert_eq!(&bytes[field..field + 4], [0; 4]);
                }
            }
        }
        check(&files, &items, "");
    }

    #[test]
    fn bytes_are_the_same_for_every_way_to_read_them(
        shapes in shapes(),
        chunk_size in 1u64..400,
        cuts in prop::collection::vec(0u64..100_000, 0..20),
    ) {
        let (_source, items) = items(&shapes);
        let dcp = Dcp { root: "", chunk_size, file_size: u64::MAX };
        let mut files = dcp_files(&items, &dcp);
        files.push(torch_file("model.pt", &items, "model"));
        for file in &files {
            let bytes = whole(file);
            let mut cuts: Vec<u64> = cuts.iter().map(|cut| cut % (file.size() + 1)).collect();
            cuts.extend([0, file.size()]);
            cuts.sort_unstable();
            let reader = Reader::default();
            for range in cuts.windows(2) {
                let (start, end) = (range[0], range[1]);
                let length = (end - start) as usize;
                let part = reader.read(file, start, length, Caching::Kernel).unwrap();
                prop_assert_eq!(&*part, &bytes[start as usize..end as usize]);
            }
        }
    }

    #[test]
    fn files_of_torch_save_hold_every_tensor(
        shapes in shapes(),
        limit in 1u64..2000,
        nested in any::<bool>(),
    ) {
        let (_source, mut items) = items(&shapes);
        items.push(zeros(5));
        let root = if nested { "model" } else { "" };
        check(&[torch_file("model.pt", &items, root)], &items, "model.pt");
        let shards = torch_shards(&items, limit, 7);
        let open = if shards.len() == 1 { "pytorch_model.bin" } else { "" };
        check(&shards, &items, open);
    }
}

#[test]
fn tied_weights_share_a_storage_in_one_shard() {
    let (_source, items) = items(&[(Dtype::F32, vec![8, 8]), (Dtype::F32, vec![8, 8])]);
    let files = torch_shards(&items, 256, 128);
    let names: Vec<&str> = files.iter().map(VirtualFile::path).collect();
    assert_eq!(
        names,
        [
            "pytorch_model-00001-of-00002.bin",
            "pytorch_model-00002-of-00002.bin",
            "pytorch_model.bin.index.json",
        ]
    );
    let index: serde_json::Value = serde_json::from_slice(&whole(&files[2])).unwrap();
    assert_eq!(index["metadata"]["total_size"], 512);
    for name in ["t0.weight", "tied.weight"] {
        assert_eq!(index["weight_map"][name], names[0]);
    }
    assert_eq!(files[0].checksums().len(), 1);
}

#[test]
fn a_million_chunks_take_memory_for_their_metadata_alone() {
    let source = tempfile::NamedTempFile::new().unwrap();
    source.as_file().set_len(1 << 32).unwrap();
    let source = SourceFile::open(&source.path().canonicalize().unwrap()).unwrap();
    let shape = Shape::new(&[1 << 20, 2048]).unwrap();
    let layout = contiguous(0, &shape);
    let tensor = Tensor::stored(source, Dtype::BF16, shape, layout).unwrap();
    let items = [item("w", tensor, None)];
    let dcp = Dcp {
        root: "",
        chunk_size: 4096,
        file_size: u64::MAX,
    };
    let files = dcp_files(&items, &dcp);
    let [metadata, data] = &*files else {
        panic!("{} files", files.len())
    };
    assert_eq!(data.segments().len(), 1);
    assert!(metadata.size() < 120 << 20, "{}", metadata.size());
    assert!(metadata.segments().len() > 50);
    let mut last = vec![0; 4096];
    read_at(data, data.size() - 4096, &mut last).unwrap();
    assert!(last.ends_with(&[0, 0]));
}
