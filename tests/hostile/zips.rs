//! Zip archives that say two things at once.

use super::make::pickle::*;
use super::make::zip::*;
use super::scene::*;

fn good() -> Zip {
    Zip::torch(&dict(&[("w", small())]))
}

fn bent(bend: impl FnOnce(&mut Zip)) -> Scene {
    file(good().bent(bend).bytes())
}

fn file(bytes: Vec<u8>) -> Scene {
    Scene::new().with("pytorch_model.bin", bytes)
}

const SIZE64: u32 = u32::MAX;

cases! {
    21 two_headers_that_disagree, "refused where a tensor or the pickle is touched" => {
        shown(file(good().bytes()), &["\"w\""]);
        for member in ["data.pkl", "data/0"] {
            all_refused([
                bent(|zip| zip.member(member).local.name[0] = b'b'),
                bent(|zip| zip.member(member).local.size = 3),
                bent(|zip| zip.member(member).local.compressed = 3),
                bent(|zip| zip.member(member).local.crc ^= 1),
                bent(|zip| zip.member(member).local.method = 8),
                bent(|zip| zip.member(member).local.flags = 1 << 11),
            ], &["contradicts its local header"]);
            refused(bent(|zip| zip.member(member).place = Some(2)), &["zip"]);
        }
    }

    22 two_members_of_one_name, "refused" => {
        refused(bent(|zip| zip.add("archive/data/0", &[8; 16])), &["two zip members", "archive/data/0"]);
        refused(bent(|zip| zip.add("archive/data.pkl", b"N.")), &["two zip members", "archive/data.pkl"]);
    }

    23 members_that_overlap, "refused: none may reach into the next" => {
        let quoted = |zip: &mut Zip| zip.member("byteorder").central.size = 500;
        let longer = |zip: &mut Zip| zip.member("data/0").both(|header| {
            header.size = 60;
            header.compressed = 60;
        });
        refused(bent(quoted), &["two sizes"]);
        refused(bent(longer), &["overlaps"]);
        refused(bent(|zip| zip.member("byteorder").place = Some(0)), &["overlaps"]);
    }

    24 compressed_members, "refused; nothing is inflated" => {
        for method in [8, 9, 12, 14, 93, 99] {
            let deflated = bent(|zip| zip.member("data/0").both(|header| {
                header.method = method;
                header.size = 1 << 30;
            }));
            refused(deflated, &["compressed", "torch.save"]);
        }
    }

    25 member_names_that_are_paths, "refused, though names never lead to files" => {
        for name in ["../secret", "/etc/passwd", "archive\\data", "archive/../../x", "a//b", "C:x", "a\0b", "a\x1b[2Jb"] {
            refused(bent(|zip| zip.add(name, b"x")), &["zip member is named"]);
        }
        refused(bent(|zip| zip.member("version").both(|header| header.name = b"\xff\xfe".into())), &["zip member"]);
    }

    26 encrypted_members, "refused by any of the flags" => {
        for flag in [0x1, 0x20, 0x40, 0x2000] {
            refused(bent(|zip| zip.member("data/0").both(|header| header.flags = flag)), &["encrypted"]);
        }
    }

    27 a_wrong_checksum, "the pickle's is refused; a tensor's is not looked at, as torch itself does not" => {
        refused(bent(|zip| zip.member("data.pkl").both(|header| header.crc ^= 1)), &["does not match its checksum"]);
        shown(bent(|zip| zip.member("data/0").both(|header| header.crc ^= 1)), &["\"w\""]);
    }

    28 more_than_one_reading, "refused: nothing before the first member, no comment, end records that agree" => {
        let fake = end(0, 0, 0, b"");
        refused(bent(|zip| zip.comment = fake), &["does not lie before its end record"]);
        refused(bent(|zip| zip.comment = vec![b'x'; 65_535]), &["end as a zip archive"]);
        refused(bent(|zip| zip.front = b"PK\x03\x04polyglot".into()), &["zip"]);
        refused(bent(|zip| zip.front = b"\x7fELF".into()), &["no file of torch.save"]);
        refused(bent(|zip| zip.member("data/0").both(|header| header.size = SIZE64)), &["zip64 sizes"]);
        refused(bent(|zip| zip.count = Some(2)), &["belong to no member"]);
        refused(bent(|zip| zip.count = Some(9)), &["ends too early"]);
        let cut = good().bytes();
        refused(file(cut[..cut.len() - 30].into()), &["incomplete"]);
        refused(file([cut, b"more".into()].concat()), &["bytes were added"]);
    }

    29 a_million_members, "refused by the number that the end record claims" => {
        let claims = |count: u64, size: u64| {
            let places = [count, count, size, 0].map(u64::to_le_bytes).concat();
            let record = [&b"PK\x06\x06"[..], &44u64.to_le_bytes(), &[0; 12], &places].concat();
            let locator = [&[0; 4][..], &4u64.to_le_bytes(), &1u32.to_le_bytes()].concat();
            let short = end(u16::MAX, u32::MAX, u32::MAX, b"");
            file([b"PK\x03\x04", &*record, b"PK\x06\x07", &locator, &short].concat())
        };
        refused(claims(1_000_000, 4), &["1000000 members"]);
        refused(claims(u64::MAX, 4), &["18446744073709551615 members"]);
        refused(claims(1, u64::MAX), &["directory"]);
    }

    30 no_pickle_or_two, "refused" => {
        refused(bent(|zip| drop(zip.members.remove(0))), &["without data.pkl"]);
        refused(bent(|zip| zip.add("b/data.pkl", b"\x80\x02N.")), &["two pickles"]);
        refused(bent(|zip| zip.add("archive/code/x.py", b"import os")), &["TorchScript"]);
    }

    31 big_endian_bytes, "refused; swapping is nobody's wish today" => {
        let big = |zip: &mut Zip| *zip.member("byteorder") = Member::new("archive/byteorder", b"big");
        refused(bent(big), &["big byte order", "little-endian"]);
    }
}
