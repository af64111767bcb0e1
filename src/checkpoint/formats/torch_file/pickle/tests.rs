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
