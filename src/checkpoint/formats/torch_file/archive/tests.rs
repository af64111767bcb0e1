//! Laws of the strict zip reader.

use super::super::testing::{Member, file, zip};
use super::*;

fn members() -> Vec<Member> {
    vec![
        Member::new("a/data.pkl", b"\x80\x02N."),
        Member::new("a/data/0", b"12345678"),
        Member::new("a/byteorder", b"little"),
    ]
}

fn open(bytes: &[u8]) -> Result<Archive> {
    let (_temporary, file) = file(bytes);
    let archive = Archive::open(Section::whole(file))?;
    archive.storage("0").map(|_| archive)
}

fn refusal(change: impl FnOnce(&mut Vec<Member>)) -> String {
    let mut members = members();
    change(&mut members);
    open(&zip(&members)).unwrap_err().to_string()
}

#[test]
fn members_lie_behind_their_local_headers() {
    let bytes = zip(&members());
    let (_temporary, file) = file(&[b"front".to_vec(), bytes.clone(), b"back".to_vec()].concat());
    let section = Section::new(file, 5, bytes.len() as u64).unwrap();
    let archive = Archive::open(section).unwrap();
    let (start, size) = archive.storage("0").unwrap();
    let mut data = vec![0; size as usize];
    archive
        .section()
        .file()
        .read_exact_at(&mut data, start)
        .unwrap();
    assert_eq!(data, b"12345678");
    assert_eq!(
        archive.read("data.pkl", 100).unwrap().unwrap(),
        b"\x80\x02N."
    );
    assert_eq!(archive.read("version", 100).unwrap(), None);
    assert!(archive.read("data.pkl", 3).is_err());
    for key in ["1", "", "../data.pkl", "0\0", "/0"] {
        assert!(archive.storage(key).is_err());
    }
}

#[test]
fn what_two_readers_could_read_differently_is_refused() {
    assert!(refusal(|members| members[1].local_name = "a/data/1".into()).contains("local header"));
    assert!(refusal(|members| members[1].size = 400).contains("overlaps"));
    assert!(refusal(|members| members[1].shift = 3).contains("local header"));
    assert!(refusal(|members| members[0].shift = 1).contains("before its first member"));
    assert!(refusal(|members| members[2].name = "a/data/0".into()).contains("two zip members"));
    assert!(refusal(|members| members.push(members[0].clone())).contains("two zip members"));
}

#[test]
fn data_that_begin_four_bytes_late_do_not_end_in_the_signature_behind_them() {
    let mut bytes = zip(&members());
    let local = b"PK\x03\x04";
    let mut headers = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(local));
    let extra = headers.nth(1).unwrap() + 28;
    bytes[extra] += 4;
    assert!(
        open(&bytes)
            .unwrap_err()
            .to_string()
            .contains("local header")
    );
}

#[test]
fn only_stored_plain_members_are_read() {
    assert!(refusal(|members| members[1].method = 8).contains("compressed (deflate)"));
    assert!(refusal(|members| members[1].method = 93).contains("compressed (zstd)"));
    for bit in [0, 5, 6, 13] {
        assert!(refusal(|members| members[1].flags |= 1 << bit).contains("encrypted"));
    }
    for name in ["../x", "/x", "a\\x", "a//x", "a/./x", "C:x", "a/\nx"] {
        assert!(refusal(|members| members[2].name = name.into()).contains("is named"));
    }
}

#[test]
fn the_pickle_is_checked_against_its_checksum() {
    let mut members = members();
    members[0].crc ^= 1;
    let (_temporary, file) = file(&zip(&members));
    let archive = Archive::open(Section::whole(file)).unwrap();
    assert!(
        archive
            .read("data.pkl", 100)
            .unwrap_err()
            .to_string()
            .contains("checksum")
    );
}

#[test]
fn one_root_with_a_pickle_and_no_program_is_needed() {
    assert!(
        refusal(|members| members.push(Member::new("b/data.pkl", b""))).contains("two pickles")
    );
    assert!(refusal(|members| members[0].name = "a/other".into()).contains("without data.pkl"));
    assert!(refusal(|members| members[0].name = "data.pkl".into()).contains("without data.pkl"));
    assert!(
        refusal(|members| members.push(Member::new("a/constants.pkl", b"")))
            .contains("TorchScript")
    );
    assert!(
        refusal(|members| members.push(Member::new("a/code/x.py", b""))).contains("TorchScript")
    );
    let big = |members: &mut Vec<Member>| members[2] = Member::new("a/byteorder", b"big");
    assert!(refusal(big).contains("has big byte order"));
}

#[test]
fn the_end_is_found_in_one_way_only() {
    let bytes = zip(&members());
    for changed in [
        bytes[..bytes.len() - 1].to_vec(),
        [bytes.clone(), b"x".to_vec()].concat(),
        [b"x".to_vec(), bytes.clone()].concat(),
        [bytes.clone(), bytes.clone()].concat(),
        Vec::new(),
        bytes[bytes.len() - 22..].to_vec(),
    ] {
        assert!(open(&changed).is_err());
    }
    let mut comment = bytes.clone();
    let at = comment.len() - 2;
    comment[at] = 22;
    assert!(open(&[comment, bytes[bytes.len() - 22..].to_vec()].concat()).is_err());
}

#[test]
fn zip64_records_stand_for_what_overflows_and_contradict_nothing() {
    let bytes = zip(&members());
    let (front, end) = bytes.split_at(bytes.len() - 22);
    let size = u32::from_le_bytes(end[12..16].try_into().unwrap()) as u64;
    let start = u32::from_le_bytes(end[16..20].try_into().unwrap()) as u64;
    let long = |start: u64| {
        let mut record = b"PK\x06\x06".to_vec();
        record.extend(44u64.to_le_bytes());
        record.extend([0; 12]);
        for value in [3, 3, size, start] {
            record.extend(u64::to_le_bytes(value));
        }
        record.extend(b"PK\x06\x07\0\0\0\0");
        record.extend((front.len() as u64).to_le_bytes());
        record.extend(1u32.to_le_bytes());
        record
    };
    let whole = |start: u64, end: &[u8]| open(&[front, &long(start), end].concat());
    whole(start, end).unwrap();
    let mut placeholders = end.to_vec();
    placeholders[16..20].fill(0xff);
    whole(start, &placeholders).unwrap();
    assert!(whole(start + 1, end).is_err());
    assert!(whole(start + 1, &placeholders).is_err());
    assert!(open(&[front, &placeholders].concat()).is_err());
}

#[test]
fn sizes_of_more_than_32_bits_stand_in_the_extra_field() {
    let long = |size: u64| {
        [
            &b"\x01\0\x10\0"[..],
            &size.to_le_bytes(),
            &size.to_le_bytes(),
        ]
        .concat()
    };
    let with = |extra: Vec<u8>| {
        let mut members = members();
        members[1].size = u32::MAX;
        members[1].extra = extra;
        open(&zip(&members)).and_then(|archive| archive.storage("0"))
    };
    let padded = [b"FB\x02\0ZZ".to_vec(), long(8)].concat();
    assert_eq!(with(padded).unwrap().1, 8);
    assert!(with(long(9)).is_err());
    assert!(with(long(u64::MAX)).is_err());
    assert!(with(long(8)[..12].to_vec()).is_err());
    assert!(with(Vec::new()).is_err());
}

#[test]
fn names_that_differ_in_case_alone_are_refused() {
    let twin = |members: &mut Vec<Member>| {
        members.push(Member::new("a/data/k", b"12345678"));
        members.push(Member::new("a/data/K", b"87654321"));
    };
    assert!(refusal(twin).contains("two zip members"));
    let order = |members: &mut Vec<Member>| members[2] = Member::new("a/ByteOrder", b"big");
    assert!(refusal(order).contains("another case"));
}
