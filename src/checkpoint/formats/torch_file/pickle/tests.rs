//! Laws of the machine, on pickles written by hand.

use super::*;
use crate::source::Budget;

const LIMIT: usize = 1000;

fn parse(body: &[u8]) -> Result<Pickle> {
    let bytes = [b"\x80\x02", body].concat();
    Pickle::parse(Path::new("p"), bytes, LIMIT, Charge::none())
}

fn refusal(body: &[u8]) -> String {
    parse(body).unwrap_err().to_string()
}

#[test]
fn scalars_are_what_they_say() {
    let pickle = parse(
        b"(K\x05M\x00\x01J\xff\xff\xff\xff\x8a\x00\x8a\x02\x00\x80G\x3f\xf8\0\0\0\0\0\0\x88Nt.",
    )
    .unwrap();
    let items: Vec<_> = pickle.root().items().collect();
    assert_eq!(
        items[..5]
            .iter()
            .map(|item| item.as_i64())
            .collect::<Option<Vec<_>>>(),
        Some(vec![5, 256, -1, 0, -32768])
    );
    assert_eq!(items[5].as_f64(), Some(1.5));
    assert_eq!(items[6].as_bool(), Some(true));
    assert!(items[7].is_none());
    assert_eq!(items[2].as_u64(), None);
}

#[test]
fn containers_grow_in_batches() {
    let pickle = parse(b"}q\x00(X\x01\0\0\0aK\x01uX\x01\0\0\0b](K\x02K\x03eK\x04as.").unwrap();
    assert_eq!(pickle.root().get("a").and_then(Object::as_u64), Some(1));
    assert_eq!(
        pickle.root().get("b").and_then(Object::as_sizes),
        Some([2, 3, 4].as_slice().into())
    );
}

#[test]
fn calls_are_recorded() {
    let pickle = parse(b"cm.n\nA.B\n(K\x01t\x81N}X\x01\0\0\0xK\x07s\x86b.").unwrap();
    let root = pickle.root();
    assert_eq!(
        root.callable().and_then(Object::global),
        Some(("m.n", "A.B"))
    );
    assert_eq!(root.class_name(), Some("B"));
    assert_eq!(root.arg(0).and_then(Object::as_u64), Some(1));
    assert_eq!(root.field("x").and_then(Object::as_u64), Some(7));
}

#[test]
fn a_named_system_function_is_refused_however_it_is_spelled() {
    let expected = "names posix.system, which no checkpoint needs; nothing was executed";
    assert!(refusal(b"cposix\nsystem\nX\x02\0\0\0id\x85R.").contains(expected));
    assert!(refusal(b"cposix\nsystem\nX\x02\0\0\0id\x85R0N.").contains(expected));
    assert!(
        refusal(b"X\x05\0\0\0posixq\x000X\x06\0\0\0systemq\x010h\x00h\x01\x93X\x02\0\0\0id\x85R.")
            .contains(expected)
    );
    assert!(refusal(b"c__builtin__\neval\n.").contains("names __builtin__.eval"));
}

#[test]
fn getattr_names_a_class_inside_a_class_and_does_nothing_else() {
    let nested = parse(b"c__builtin__\ngetattr\ncm\nA\nX\x01\0\0\0B\x86R)\x81.").unwrap();
    assert_eq!(nested.root().class_name(), Some("B"));
    for body in [
        &b"cbuiltins\ngetattr\nX\x02\0\0\0osX\x06\0\0\0system\x86R."[..],
        b"cbuiltins\ngetattr\ncm\nA\n)R\x85R.",
        b"cbuiltins\ngetattr\n)R.",
        b"cbuiltins\ngetattr\ncm\nA\n)RX\x01\0\0\0B\x86R.",
    ] {
        assert!(refusal(body).contains("names builtins.getattr"));
    }
    let method = b"cbuiltins\ngetattr\ncbuiltins\ndict\nX\x03\0\0\0get\x86R.";
    assert!(refusal(method).contains("names builtins.dict.get"));
}

#[test]
fn opcodes_that_no_checkpoint_needs_are_refused_by_name() {
    for (body, name) in [
        (&b"(iposix\nsystem\n."[..], "INST"),
        (b"(cm\nC\no.", "OBJ"),
        (b"cm\nC\n)}\x92.", "NEWOBJ_EX"),
        (b"\x82\x01.", "EXT1"),
        (b"I1\n.", "INT"),
        (b"S'x'\n.", "STRING"),
        (b"p0\n.", "PUT"),
        (b"\x97.", "NEXT_BUFFER"),
        (b"\xff.", "unknown opcode 0xff"),
    ] {
        assert!(refusal(body).contains(name), "{name}");
    }
    assert!(Pickle::parse(Path::new("p"), b"(dp0\n.".to_vec(), LIMIT, Charge::none()).is_err());
}

#[test]
fn lengths_and_indices_beyond_the_input_cost_nothing() {
    for body in [
        &b"X\xff\xff\xff\xffab."[..],
        b"\x8d\x00\x00\x00\x00\x00\x00\x00\x80.",
        b"\x8b\x00\x00\x00\x80.",
        b"Nr\xff\xff\xff\xff.",
        b"j\xff\xff\xff\xff.",
        b"h\x00.",
        b"N",
        b"",
        b"\x95\xff",
    ] {
        refusal(body);
    }
}

#[test]
fn the_stack_is_never_read_below_a_mark_or_the_bottom() {
    for body in [
        &b"0N."[..],
        b"t.",
        b"N(\x85.",
        b"N(R.",
        b"](a.",
        b"(K\x01e.",
        b"}(K\x01u.",
        b"NN.",
        b"(N.",
        b".",
        b"2.",
        b"(2.",
    ] {
        refusal(body);
    }
}

#[test]
fn items_go_into_containers_alone() {
    for body in [
        &b"NK\x01a."[..],
        b")K\x01a.",
        b"}K\x01a.",
        b"]K\x01K\x01s.",
        b"X\x01\0\0\0a(K\x01e.",
        b"ctorch._utils\n_rebuild_tensor_v2\n)RK\x01K\x01s.",
        b"K\x01}b.",
        b"}}b.",
        b"cm\nC\n)R}b}b.",
        b"K\x01)R.",
        b"cm\nC\n]R.",
    ] {
        refusal(body);
    }
}

#[test]
fn depth_and_cycles_are_harmless() {
    let deep = [b"\x80\x02)".to_vec(), vec![0x85; 100_000], b".".to_vec()].concat();
    assert!(
        Pickle::parse(Path::new("p"), deep, 200_000, Charge::none())
            .unwrap()
            .root()
            .is_sequence()
    );
    let cycle = parse(b"]q\x00h\x00a.").unwrap();
    assert!(cycle.root().item(0) == Some(cycle.root()));
}

#[test]
fn values_are_limited_in_number() {
    let many = [b"(".to_vec(), b"K\x01".repeat(LIMIT + 1), b"t.".to_vec()].concat();
    assert!(refusal(&many).contains("more than 1000 values"));
    let copies = [b"](N".to_vec(), b"2".repeat(2 * LIMIT), b"e.".to_vec()].concat();
    assert!(refusal(&copies).contains("more than 1000 values"));
}

#[test]
fn nothing_may_follow_a_whole_pickle() {
    assert!(refusal(b"N.N.").contains("2 bytes follow"));
    let (pickle, length) = Pickle::first(b"\x80\x02K\x07.rest", LIMIT, Charge::none()).unwrap();
    assert_eq!((pickle.root().as_u64(), length), (Some(7), 5));
    assert!(matches!(
        Pickle::first(b"\x80\x02K", LIMIT, Charge::none()),
        Err(Fault::Truncated)
    ));
}

#[test]
fn memory_is_charged_while_values_are_read_and_given_back() {
    let budget = Budget::of(512 << 10);
    let parse = |bytes: Vec<u8>| {
        let charge = budget.charge(Path::new("p"), bytes.len() as u64).unwrap();
        Pickle::parse(Path::new("p"), bytes, usize::MAX, charge)
    };
    for opcode in [b"]", b"(", b"N"] {
        let many = [b"\x80\x02".to_vec(), opcode.repeat(100_000), b".".to_vec()].concat();
        let error = parse(many).unwrap_err();
        assert!(matches!(error, Error::Memory { .. }), "{error}");
    }
    let whole = parse(b"\x80\x02N.".to_vec()).unwrap();
    assert!(budget.taken() > 0);
    drop(whole);
    assert_eq!(budget.taken(), 0);
}

const LIST: &[u8] = b"](K\x02eq\x05";

/// A tuple of a memoized container, of a call that takes it, and of the container after a change.
fn changed_after(container: &[u8], call: &[u8], change: &[u8]) -> Result<Pickle> {
    parse(&[b"(", container, call, change, b"t."].concat())
}

#[test]
fn what_a_call_took_cannot_change_after_it() {
    let calls: [&[u8]; 9] = [
        b"ctorch\nSize\nh\x05\x85R",
        b"cbuiltins\nset\nh\x05\x85R",
        b"ccollections\ndeque\nh\x05\x85R",
        b"ctorch._utils\n_rebuild_tensor_v2\n(Nh\x05tR",
        b"ctorch._utils\n_rebuild_tensor\n(N(NNh\x05ttR",
        b"ctorch._utils\n_rebuild_tensor\n(N](h\x05etR",
        b"ctorch._tensor\n_rebuild_from_type_v2\n(cm\nf\ncm\nC\n(h\x05tNtR",
        b"ctorch._tensor\n_rebuild_from_type_v2\n(ctorch._utils\n_rebuild_tensor\ncm\nC\n(h\x05tNtR",
        b"(h\x05tQ",
    ];
    for call in calls {
        assert!(changed_after(LIST, call, b"").is_ok());
        for change in [&b"h\x05K\x03a"[..], b"h\x05(K\x03e"] {
            let error = changed_after(LIST, call, change).unwrap_err().to_string();
            assert!(error.contains("that a call has taken"), "{error}");
        }
    }
    assert!(changed_after(LIST, b"cm\nf\nh\x05\x85R", b"h\x05K\x03a").is_ok());
}

#[test]
fn a_state_cannot_change_after_an_object_took_it() {
    let states: [&[u8]; 4] = [
        b"cm\nC\n)\x81h\x05b",
        b"cm\nC\n)\x81Nh\x05\x86b",
        b"ctorch._utils\n_rebuild_parameter_with_state\n(NNNh\x05tR",
        b"ccollections\nOrderedDict\nh\x05\x85R",
    ];
    let container = b"}(X\x01\0\0\0xNuq\x05";
    for state in states {
        assert!(changed_after(container, state, b"").is_ok());
        for change in [&b"h\x05NNs"[..], b"h\x05(NNu"] {
            let error = changed_after(container, state, change)
                .unwrap_err()
                .to_string();
            assert!(error.contains("that a call has taken"), "{error}");
        }
    }
}

#[test]
fn a_shared_dictionary_may_grow_until_the_end() {
    let pickle = parse(b"(}q\x05h\x05h\x05(X\x01\0\0\0aK\x01ut.").unwrap();
    for item in pickle.root().items() {
        assert_eq!(item.get("a").and_then(Object::as_u64), Some(1));
    }
}

#[test]
fn no_state_sets_the_values_of_a_tensor() {
    for key in ["data", "real", "imag", "grad"] {
        let dict = [b"}", &text(key)[..], b"Ns"].concat();
        let ordered = [
            b"ccollections\nOrderedDict\n](](",
            &text(key)[..],
            b"Nee\x85R",
        ]
        .concat();
        for state in [dict.clone(), [b"N", &dict[..], b"\x86"].concat(), ordered] {
            for call in [
                [b"ctorch._utils\n_rebuild_parameter_with_state\n(NNN", &state[..], b"tR"].concat(),
                [b"ctorch._tensor\n_rebuild_from_type_v2\n(cm\nf\ncm\nC\n)", &state[..], b"tR"].concat(),
                [
                    b"ctorch._tensor\n_rebuild_from_type_v2\n(ctorch._utils\n_rebuild_parameter_with_state\ncm\nC\n(NNN",
                    &state[..],
                    b"tNtR",
                ]
                .concat(),
            ] {
                let read = parse(&[&call[..], b"."].concat());
                assert_eq!(read.is_ok(), key == "grad", "{key}");
            }
        }
    }
}

fn text(text: &str) -> Vec<u8> {
    [
        b"X",
        &(text.len() as u32).to_le_bytes()[..],
        text.as_bytes(),
    ]
    .concat()
}

/// The numbers under the keys of the root, in order.
fn numbers(body: &[u8]) -> Vec<u64> {
    let pickle = parse(body).unwrap();
    assert!(pickle.root().is_mapping());
    pickle
        .root()
        .entries()
        .filter_map(|(_, value)| value.as_u64())
        .collect()
}

#[test]
fn dictionaries_have_the_entries_that_they_are_made_from() {
    for (body, expected) in [
        (
            &b"ccollections\nOrderedDict\n](](NK\x01e](NK\x02ee\x85R(NK\x03u."[..],
            &[1, 2, 3][..],
        ),
        (
            b"ccollections\nOrderedDict\n(NK\x01\x86NK\x02\x86t\x85R.",
            &[1, 2],
        ),
        (
            b"ccollections\nOrderedDict\n}(NK\x01u\x85R(NK\x02u.",
            &[1, 2],
        ),
        (
            b"ccollections\nOrderedDict\nccollections\nOrderedDict\n)R(NK\x01u\x85R.",
            &[1],
        ),
        (b"cbuiltins\ndict\n](](NK\x01ee\x85R.", &[1]),
        (b"ccollections\ndefaultdict\nN](](NK\x01ee\x86R.", &[1]),
        (b"ccollections\nCounter\n}(NK\x01u\x85R.", &[1]),
        (b"ccollections\nCounter\n](](NK\x01ee\x85R(NK\x02u.", &[2]),
        (b"ccollections\nOrderedDict\n)R(NK\x01u.", &[1]),
    ] {
        assert_eq!(numbers(body), expected);
    }
}

#[test]
fn dictionaries_made_from_anything_else_are_refused() {
    for body in [
        &b"ccollections\nOrderedDict\n](](NNNee\x85R."[..],
        b"ccollections\nOrderedDict\n](X\x02\0\0\0abe\x85R.",
        b"ccollections\nOrderedDict\nX\x02\0\0\0ab\x85R.",
        b"ccollections\nOrderedDict\n)]\x86R.",
        b"ccollections\nOrderedDict\nccollections\nOrderedDict\n](](NNee\x85R\x85R.",
        b"ccollections\nOrderedDict\n](](NK\x01ee\x85\x81.",
        b"cbuiltins\nset\n](K\x01e\x85\x81.",
        b"cbuiltins\nlist\n](K\x01e\x85RK\x00K\x01s.",
    ] {
        refusal(body);
    }
}

#[test]
fn sequences_have_what_they_are_made_from_and_what_is_added() {
    for (body, expected) in [
        (&b"ctorch\nSize\n](K\x02K\x03e\x85R."[..], Some(&[2, 3][..])),
        (b"ctorch\nSize\nK\x02K\x03\x86\x85\x81.", Some(&[2, 3])),
        (b"ctorch\nSize\n)R.", Some(&[])),
        (b"ccollections\ndeque\n](K\x02e\x85R(K\x03e.", Some(&[2, 3])),
        (b"ccollections\ndeque\n)R(K\x03e.", Some(&[3])),
        (b"ccollections\ndeque\n](K\x02eK\x01\x86R(K\x03e.", None),
        (b"cbuiltins\nset\n](K\x02e\x85R.", None),
        (b"cm\nSize\n](K\x02e\x85R.", None),
    ] {
        let sizes = parse(body).unwrap().root().as_sizes();
        assert_eq!(sizes.as_deref(), expected);
    }
}

#[test]
fn a_list_that_many_calls_take_is_looked_at_once() {
    let items = b"](NNe".repeat(300);
    let calls = b"ccollections\nOrderedDict\nh\x05\x85R".repeat(100);
    let body = [b"(](", &items[..], b"eq\x05", &calls[..], b"t."].concat();
    assert_eq!(parse(&body).unwrap().root().items().count(), 101);
}
