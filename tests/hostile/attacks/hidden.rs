//! Pickles that hide what they call from a scanner.

use super::attack::{Attack, PYTHON, SHELL, refuses, weights};
use super::pickled::*;
use crate::make::pickle::{call, dict, global, pickle, small, text};

pub fn attacks() -> Vec<Attack> {
    let chain = [
        call(global("__builtin__", "globals"), &[]),
        b"q\x640".to_vec(),
        call(
            global("__builtin__", "compile"),
            &[text(PYTHON), text(""), text("exec")],
        ),
        b"q\x650".to_vec(),
        [global("__builtin__", "eval"), b"(h\x65h\x64tR".to_vec()].concat(),
    ];
    let decoy = b"Vos\np2\n0Vsystem\np3\n0Vtorch\np0\n0VLongStorage\np1\n0g2\ng3\n\x93(Vtouch ../canary\ntR.";
    let getter = [
        named("operator", "attrgetter"),
        short("system"),
        b"\x85R".to_vec(),
    ]
    .concat();
    let import = [
        named("builtins", "__import__"),
        short("os"),
        b"\x85R".to_vec(),
    ]
    .concat();
    let encoded = call(
        global("_codecs", "encode"),
        &[text("cos\nsystem\n(Vtouch ../canary\ntR."), text("latin1")],
    );
    let bdb = [
        call(
            global("__builtin__", "getattr"),
            &[global("bdb", "Bdb"), text("run")],
        ),
        text(PYTHON),
        b"\x85R".to_vec(),
    ];
    let shadowed = [
        named("torch", "_utils"),
        b"}".to_vec(),
        short("_utils"),
        short("builtins"),
        b"sb0".to_vec(),
        named("_utils", "eval"),
    ];
    let partial = [
        named("functools", "partial"),
        named("torch.serialization", "load"),
        b"\x85R".to_vec(),
        b"(".to_vec(),
        named("torch.serialization", "load"),
        short("other.bin"),
        b"\x85}Ntb)R".to_vec(),
    ];
    let second = [
        pickle(b"](X\x01\0\0\0ae"),
        pickle(&call(
            global("requests.api", "get"),
            &[text("http://127.0.0.1")],
        )),
    ];
    let joined = [
        named("operator", "itemgetter"),
        b"0".to_vec(),
        named("builtins", "getattr"),
        short(""),
        short("join"),
        b"\x86R".to_vec(),
    ];
    vec![
        refuses(
            "picklescan, modelscan: malicious0, a chain of builtins",
            beside(chain.concat()),
            INERT,
        ),
        refuses(
            "picklescan: malicious10, fickling: test_obj, INST",
            beside([&b"("[..], &text(PYTHON), b"i__builtin__\nexec\n"].concat()),
            &["INST"],
        ),
        refuses(
            "picklescan, modelscan: malicious11, names out of a memo with decoys",
            framed(&[b"\x80\x04", &decoy[..]].concat()),
            UNNEEDED,
        ),
        refuses(
            "the same as protocol 0",
            weights(decoy),
            &["pytorch_model.bin"],
        ),
        refuses(
            "picklescan: malicious12, attrgetter of an import",
            modern(&[&getter, &import, b"\x85R", &short(SHELL), b"\x85R"]),
            INERT,
        ),
        refuses(
            "picklescan: malicious13a, a pickle in a pickle",
            beside(call(global("pickle", "loads"), &[encoded])),
            INERT,
        ),
        refuses(
            "picklescan: malicious15a, a method out of getattr",
            beside(bdb.concat()),
            INERT,
        ),
        refuses(
            "picklescan: malicious6, a second pickle behind the first",
            framed(&second.concat()),
            &["pytorch_model.bin"],
        ),
        refuses(
            "picklescan: malicious23, names as STRING",
            modern(&[b"S'os'\nS'system'\n\x93S'touch ../canary'\n\x85R"]),
            UNNEEDED,
        ),
        refuses(
            "picklescan: malicious19, a partial with a state",
            beside(partial.concat()),
            &["calls something that is no class or function"],
        ),
        refuses(
            "picklescan: sys_module_override_sploit",
            modern(&[&shadowed.concat(), &short(PYTHON), b"\x85R"]),
            &["gives a state to something that takes none"],
        ),
        refuses(
            "picklescan: GHSA-84r2-jw7c-4r5q, methodcaller of locate",
            modern(&[
                &named("operator", "methodcaller"),
                &short("system"),
                &short(SHELL),
                b"\x86R",
                &named("pydoc", "locate"),
                &short("os"),
                b"\x85R\x85R",
            ]),
            INERT,
        ),
        refuses(
            "fickling: test_missing_ctypes, getattr of a library",
            modern(&[
                &named("builtins", "getattr"),
                &named("ctypes", "CDLL"),
                &short("libc.so.6"),
                b"\x85R",
                &short("system"),
                b"\x86R",
            ]),
            INERT,
        ),
        refuses(
            "fickling: test_missing_code, a method of an interpreter",
            modern(&[
                &named("builtins", "getattr"),
                &named("code", "InteractiveInterpreter"),
                b")R",
                &short("runsource"),
                b"\x86R",
            ]),
            INERT,
        ),
        refuses(
            "fickling: test_stack_global_dynamic_import, names joined at run time",
            modern(&[&joined.concat()]),
            INERT,
        ),
        refuses(
            "fickling: test_missing_pty_unsafe_imports, BUILD behind the call",
            modern(&[
                &named("pty", "spawn"),
                &short("id"),
                b"\x85R",
                &short("gottem"),
                b"b",
            ]),
            INERT,
        ),
        refuses(
            "fickling: test_obj_pop_call_invisibility",
            modern(&[b"(", &named("smtplib", "SMTP"), &short("127.0.0.1"), b"o0N"]),
            INERT,
        ),
        refuses(
            "fickling: test_pop_mark, an attribute of numpy",
            modern(&[
                b"(",
                &named("numpy", "__builtins__"),
                &short("eval"),
                b"\x85R",
                &short(PYTHON),
                b"\x85R1N",
            ]),
            &["pytorch_model.bin"],
        ),
        refuses(
            "safetensors: torch_ace_create, a dict that is an eval",
            beside(
                [
                    call(global("__builtin__", "eval"), &[text(PYTHON)]),
                    b"(".to_vec(),
                    text("weight"),
                    small(),
                    b"u".to_vec(),
                ]
                .concat(),
            ),
            INERT,
        ),
        refuses(
            "modelscan: an injected call whose result is dropped",
            framed(&pickle(
                &[system(), b"0".to_vec(), dict(&[("w", small())])].concat(),
            )),
            INERT,
        ),
    ]
}
