//! Laws of HuggingFaceStorageWriter's folders.

use std::fs;

use super::super::tests::safetensors;
use super::*;

/// A file of HuggingFaceStorageWriter with rows of `w` from `row` on.
fn shard(row: u64, rows: u64) -> Vec<u8> {
    let info = format!(r#"{{\"w\":{{\"saved_offsets\":[{row},0]}}}}"#);
    let header = format!(
        r#"{{"__metadata__":{{"DCP_SHARDING_INFO":"{info}"}},"w":{{"dtype":"U8","shape":[{rows},2],"data_offsets":[0,{}]}}}}"#,
        rows * 2
    );
    safetensors(&header, &vec![0; 2 * rows as usize])
}

fn sharded(files: &[(&str, Vec<u8>)]) -> Result<Vec<SourceTensor>> {
    let root = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        fs::write(root.path().join(name), bytes).unwrap();
    }
    hf_sharded(&Folder::open(root.path()).unwrap(), &mut Vec::new())
}

#[test]
fn a_rank_that_wrote_nothing_leaves_a_save_complete() {
    let name = |rank: u64| format!("shard-{rank:05}-model-00001-of-00001.safetensors");
    let tensors = sharded(&[(&name(1), shard(0, 3)), (&name(3), shard(3, 3))]).unwrap();
    assert_eq!(tensors[0].parts[0].shape().dims(), [6, 2]);
    // The rows of a file that is missing are a hole.
    let torn = sharded(&[(&name(1), shard(0, 3)), (&name(3), shard(4, 3))]);
    assert!(torn.unwrap_err().to_string().contains("no chunk holds"));
}

#[test]
fn safetensors_shards_are_joined_by_their_saved_offsets() {
    let name = |rank: u64| format!("shard-{rank:05}-model-00001-of-00001.safetensors");
    let tensors = sharded(&[(&name(1), shard(2, 3)), (&name(2), shard(0, 2))]).unwrap();
    assert_eq!(tensors[0].parts[0].shape().dims(), [5, 2]);
    assert!(
        sharded(&[(&name(1), shard(2, 3))])
            .unwrap_err()
            .to_string()
            .contains("no chunk holds")
    );
    let part = "shard-00001-model-00001-of-00002.safetensors";
    assert!(
        sharded(&[(part, shard(0, 3))])
            .unwrap_err()
            .to_string()
            .contains("part 2 of 2")
    );
    assert!(sharded(&[(&name(1), shard(0, 3)), (part, shard(0, 3))]).is_err());
}
