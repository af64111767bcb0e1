//! safetensors: the abuse attempts of `attacks/`, and every header of the unit tests of `tensor.rs`.

use super::attack::{Attack, inert, refuses};
use crate::make::tensors::{entry, file, framed, one};
use crate::scene::Scene;

fn whole(bytes: Vec<u8>) -> Scene {
    Scene::new().with("model.safetensors", bytes)
}

/// The tensor of most unit tests, with `data` bytes behind the header.
fn tensor(shape: &str, range: &str, data: usize) -> Scene {
    whole(one("test", "I32", shape, range, data))
}

/// `count` tensors over the same bytes.
fn overlapping(count: usize, shape: &str, bytes: usize) -> Vec<u8> {
    let each = |number| {
        format!(
            "\"weight_{number}\":{}",
            entry("F32", shape, &format!("0,{bytes}"))
        )
    };
    file(
        &format!("{{{}}}", (0..count).map(each).collect::<Vec<_>>().join(",")),
        bytes,
    )
}

fn abuse() -> Vec<Attack> {
    let claims_more = framed(
        1000,
        one("weight", "F32", "2,2", "0,16", 16).split_at(8).1,
        0,
    );
    // The attempt writes ten million entries, which are 0.7 GB of header: all of it but the front is left out here.
    let front = overlapping(10, "2,2", 16);
    let endless = [&750_000_000u64.to_le_bytes()[..], &front[8..]].concat();
    let endless = Scene::new().sparse("model.safetensors", &endless, 750_000_024);
    vec![
        refuses(
            "safetensors_abuse_attempt_1: a header longer than the file",
            whole(claims_more),
            &["incomplete", "a header of 1000 bytes"],
        ),
        refuses(
            "safetensors_abuse_attempt_2: a header of ten million tensors",
            endless,
            &["a header of 750000000 bytes"],
        ),
        refuses(
            "safetensors_abuse_attempt_3: 100,000 tensors over the same bytes",
            whole(overlapping(100_000, "200,200", 160_000)),
            &["begins at byte"],
        ),
        refuses(
            "test_json_attack",
            whole(overlapping(10, "2,2", 16)),
            &["begins at byte"],
        ),
    ]
}

pub fn attacks() -> Vec<Attack> {
    let mut polyglot = one("test", "I32", "2,2", "0,16", 16);
    polyglot.extend(b"extra_bogus_data_for_polyglot_file");
    let too_large = framed(
        0xffff_ff00_0000_003c,
        one("test", "I32", "2,2", "0,16", 16).split_at(8).1,
        0,
    );
    let metadata = format!(
        r#"{{"__metadata__":{{"very_large_metadata":"{}"}}}}"#,
        "a".repeat(100_000_000)
    );
    let mut attacks = abuse();
    attacks.extend([
        inert(
            "test_serialization",
            whole(one("attn.0", "F32", "1,2,3", "0,24", 24)),
            &["\"attn.0\""],
        ),
        inert(
            "test_serialization_fp4",
            whole(one("attn.0", "F4", "1,2", "0,1", 1)),
            &["\"F4\""],
        ),
        refuses(
            "test_serialization_fp4_misaligned",
            whole(one("attn.0", "F4", "1,3", "0,2", 2)),
            &["cannot hold"],
        ),
        refuses(
            "test_serialization_fp4_invalid",
            whole(one("attn.0", "F4", "1,2", "0,2", 2)),
            &["cannot hold"],
        ),
        refuses(
            "test_empty",
            whole(file("{}      ", 0)),
            &["holds no weights"],
        ),
        refuses(
            "test_empty with metadata",
            whole(file(r#"{"__metadata__":{"framework":"pt"}}"#, 0)),
            &["holds no weights"],
        ),
        inert(
            "test_empty_shapes_allowed",
            tensor("", "0,4", 4),
            &["\"test\""],
        ),
        inert(
            "test_deserialization",
            tensor("2,2", "0,16", 16),
            &["\"test\""],
        ),
        refuses(
            "test_metadata_incomplete_buffer: bytes behind",
            whole(polyglot),
            &["34 bytes follow"],
        ),
        refuses(
            "test_metadata_incomplete_buffer: two missing",
            tensor("2,2", "0,16", 14),
            &["incomplete"],
        ),
        refuses("test_header_too_large", whole(too_large), &["a header of"]),
        refuses(
            "test_header_too_small",
            whole(Vec::new()),
            &["no safetensors file"],
        ),
        refuses(
            "test_invalid_header_length",
            whole(framed(60, b"", 0)),
            &["incomplete"],
        ),
        refuses(
            "test_invalid_header_non_utf8",
            whole(framed(1, b"\xff", 0)),
            &["no safetensors"],
        ),
        refuses(
            "test_invalid_header_not_json",
            whole(framed(1, b"{", 0)),
            &["no safetensors header"],
        ),
        refuses(
            "test_whitespace_padded_header",
            whole(file("{}\r \t\n", 0)),
            &["holds no weights"],
        ),
        refuses(
            "test_whitespace_leading_padded_header",
            whole(file("\t\n{}\r ", 0)),
            &["holds no weights"],
        ),
        inert(
            "test_zero_sized_tensor",
            tensor("2,0", "0, 0", 0),
            &["\"test\""],
        ),
        refuses(
            "test_invalid_info",
            tensor("2,2", "0, 4", 4),
            &["cannot hold"],
        ),
        refuses(
            "test_validation_overflow: the shape",
            tensor("2,18446744073709551614", "0,16", 16),
            &["too many"],
        ),
        refuses(
            "test_validation_overflow: the bytes",
            tensor("2,9223372036854775807", "0,16", 16),
            &["too many"],
        ),
        refuses(
            "test_invalid_header_size_serialization",
            whole(file(&metadata, 0)),
            &["a header of"],
        ),
    ]);
    attacks
}
