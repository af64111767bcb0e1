//! Archives and other files around a payload: encrypted, renamed, damaged, nested, or bombs.

use super::attack::{Attack, PYTHON, SHELL, inert, refuses, weights};
use crate::make::pickle::{boolean, call, dict, global, pickle, small, text};
use crate::make::zip::{Header, Member, Zip, torch};
use crate::scene::Scene;

/// The zip of picklescan's `malicious1`: one member that calls eval.
fn malicious(name: &str) -> Zip {
    let mut zip = Zip::default();
    zip.add(
        name,
        &pickle(&call(global("builtins", "eval"), &[text(PYTHON)])),
    );
    zip
}

/// The same, bent.
fn bent(name: &str, change: impl Fn(&mut Member)) -> Vec<u8> {
    malicious(name)
        .bent(|zip| zip.members.iter_mut().for_each(change))
        .bytes()
}

fn flagged(flag: u16) -> Vec<u8> {
    bent("data.pkl", |member| {
        member.both(|header| header.flags = flag)
    })
}

/// A checkpoint whose storage claims to inflate to forty gigabytes.
fn bomb() -> Vec<u8> {
    let inflates = |header: &mut Header| {
        header.method = 8;
        header.size = 4_000_000_000;
    };
    let good = Zip::torch(&dict(&[("w", small())]));
    good.bent(|zip| zip.member("data/0").both(inflates)).bytes()
}

/// The header of a `.npy` file of Python objects, and its pickle.
fn object_array() -> Vec<u8> {
    let header = format!(
        "{:<117}\n",
        "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"
    );
    let length = (header.len() as u16).to_le_bytes();
    let pickle = pickle(&call(
        global("ssl", "get_server_certificate"),
        &[text("127.0.0.1")],
    ));
    [b"\x93NUMPY\x01\0", &length[..], header.as_bytes(), &pickle].concat()
}

/// A tar with one member.
fn tar(name: &str, data: &[u8]) -> Vec<u8> {
    let mut header = vec![0; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[124..135].copy_from_slice(format!("{:011o}", data.len()).as_bytes());
    header[257..263].copy_from_slice(b"ustar\0");
    [header, data.to_vec(), vec![0; 1024]].concat()
}

/// torch's first format: a magic number, then protocol, system and the object, each a pickle of its own.
fn stream(magic: Vec<u8>) -> Vec<u8> {
    let call = call(global("posix", "system"), &[text(SHELL)]);
    let parts = [
        pickle(&magic),
        pickle(b"M\xe9\x03"),
        pickle(&dict(&[("little_endian", boolean(true))])),
        pickle(&dict(&[("w", call)])),
    ];
    parts.concat()
}

pub fn attacks() -> Vec<Attack> {
    [archives(), streams()].into_iter().flatten().collect()
}

fn archives() -> Vec<Attack> {
    let nested = Zip::default().bent(|zip| zip.add("inner.pt", &malicious("data.pkl").bytes()));
    let numpy = Zip::default().bent(|zip| zip.add("a.npy", &object_array()));
    let prefixed = Zip::torch(&dict(&[("w", small())]))
        .bent(|zip| zip.front = b"twenty random letters".to_vec());
    let script = Zip::torch(&dict(&[("w", small())]))
        .bent(|zip| zip.add("archive/code/__torch__.py", PYTHON.as_bytes()));
    let constants = Zip::torch(&dict(&[("w", small())]))
        .bent(|zip| zip.add("archive/constants.pkl", &pickle(b")")));
    vec![
        refuses(
            "picklescan, modelscan: malicious1.zip",
            weights(&malicious("data.pkl").bytes()),
            &["pytorch_model.bin"],
        ),
        refuses(
            "picklescan: malicious1_wrong_ext.zip",
            weights(&malicious("data.txt").bytes()),
            &["not written by torch.save"],
        ),
        refuses(
            "picklescan: malicious1_0x1.zip",
            weights(&flagged(0x1)),
            &["encrypted"],
        ),
        refuses(
            "picklescan: malicious1_0x20.zip",
            weights(&flagged(0x20)),
            &["encrypted"],
        ),
        refuses(
            "picklescan: malicious1_0x40.zip",
            weights(&flagged(0x40)),
            &["encrypted"],
        ),
        refuses(
            "picklescan, modelscan: password protected",
            weights(&bent("data.pkl", |member| {
                member.both(|header| {
                    header.flags = 1;
                    header.method = 99;
                })
            })),
            &["encrypted"],
        ),
        refuses(
            "picklescan: malicious1_central_directory.zip",
            weights(&bent("data.pkl", |member| {
                member.central.name = b"data.txt".to_vec()
            })),
            &["pytorch_model.bin"],
        ),
        refuses(
            "picklescan: malicious1_crc.zip",
            weights(&bent("archive/data.pkl", |member| {
                member.both(|header| header.crc ^= 1)
            })),
            &["checksum"],
        ),
        refuses(
            "picklescan: malicious1.7z",
            weights(b"7z\xbc\xaf\x27\x1c\0\x04"),
            &["7z archive"],
        ),
        refuses(
            "picklescan: object_arrays.npz",
            weights(&numpy.bytes()),
            &["not written by torch.save"],
        ),
        refuses(
            "picklescan: dns_exfiltration.npy, fickling: pickle.npy",
            weights(&object_array()),
            &["pytorch_model.bin"],
        ),
        refuses(
            "fickling: test_recursive_zip",
            weights(&nested.bytes()),
            &["not written by torch.save"],
        ),
        refuses(
            "fickling: test_recursive_tar",
            weights(&tar("pickle.npy", &object_array())),
            &["pytorch_model.bin"],
        ),
        refuses(
            "fickling: test_legacy_tar",
            weights(&tar("pickle", b"dummy content")),
            &["tar archive"],
        ),
        refuses(
            "fickling: test_zip, letters before the archive",
            weights(&prefixed.bytes()),
            &["pytorch_model.bin"],
        ),
        refuses(
            "fickling: test_torchscript",
            weights(&script.bytes()),
            &["TorchScript"],
        ),
        refuses(
            "fickling: test_create_standard_torchscript_polyglot",
            weights(&constants.bytes()),
            &["pytorch_model.bin"],
        ),
        refuses(
            "safetensors: torch_dos_create, forty gigabytes of zeros",
            weights(&bomb()),
            &["compressed"],
        ),
        refuses(
            "safetensors: numpy_dos_create, forty gigabytes of zeros",
            weights(&bent("weights.npy", |member| {
                member.both(|header| header.method = 8)
            })),
            &["pytorch_model.bin"],
        ),
    ]
}

fn streams() -> Vec<Attack> {
    let magic = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19".to_vec();
    let evaluated = call(
        global("__builtin__", "eval"),
        &[text("0x1950A86A20F9469CFC6C")],
    );
    let paddle = Scene::new().with(
        "weights.pdparams",
        pickle(&call(global("builtins", "eval"), &[text(PYTHON)])),
    );
    let keras = Scene::new().with("tf_ace.h5", b"\x89HDF\r\n\x1a\n\0\0\0\0\0\x08\x08\0");
    vec![
        refuses(
            "picklescan: pytorch_magic_bypass.pt, a magic number that is a call",
            weights(&stream(evaluated)),
            &["pytorch_model.bin"],
        ),
        refuses(
            "picklescan: malicious1 as an old stream",
            weights(&stream(magic)),
            &["nothing was executed"],
        ),
        refuses(
            "picklescan, modelscan: bad_pytorch.pt, a picture",
            weights(b"\x89PNG\r\n\x1a\n"),
            &["pytorch_model.bin"],
        ),
        refuses(
            "safetensors: paddle_ace_create",
            paddle,
            &["no checkpoint that is known"],
        ),
        refuses(
            "safetensors: tf_ace_create, tf_safe_ace_create",
            keras,
            &["no checkpoint that is known"],
        ),
        inert(
            "picklescan: new_pytorch_model.bin, which is harmless",
            weights(&torch(&dict(&[("w", small())]))),
            &["\"w\""],
        ),
    ]
}
