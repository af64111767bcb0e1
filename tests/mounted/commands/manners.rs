//! Flags and names that users of other programs try first.

use std::fs;

use crate::common::programs::*;
use crate::need_fuse;

fn ok(stage: &Stage, arguments: &[&str]) -> String {
    let output = stage.run(arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_mount_point_is_made_on_request_and_several_views_end_at_once() {
    need_fuse!();
    let stage = Stage::new();
    for point in ["made/one", "made/two", "made/three"] {
        ok(&stage, &["mount", "--daemon", "--mkdir", "source", point]);
        assert!(stage.other(point).join("config.json").exists());
    }
    ok(&stage, &["unmount", "made/one", "made/two"]);
    assert!(
        !stage.other("made/one/config.json").exists()
            && !stage.other("made/two/config.json").exists()
    );
    let output = stage.run(&["umount", "made/one", "made/three"]);
    assert!(
        !output.status.success() && complaint(&output).contains("made/one"),
        "{output:?}"
    );
    assert!(
        !stage.other("made/three/config.json").exists(),
        "one failure keeps no other view"
    );
}

#[test]
fn a_dry_run_of_export_lists_and_writes_nothing() {
    let stage = Stage::new();
    let said = ok(&stage, &["convert", "--dry-run", "source", "copy"]);
    assert!(
        said.contains("model.safetensors") && said.contains("nothing was written"),
        "{said}"
    );
    assert!(!stage.other("copy").exists());
    ok(&stage, &["convert", "source", "copy"]);
    assert!(stage.other("copy/model.safetensors").exists());
}

#[test]
fn torchs_names_of_element_types_are_understood() {
    let stage = Stage::new();
    let shown = |dtype: &str| ok(&stage, &["inspect", "source", "--json", "--dtype", dtype]);
    assert_eq!(shown("bfloat16"), shown("bf16"));
    assert_eq!(shown("torch.float32"), shown("f32"));
}

#[test]
fn verbosity_is_a_flag() {
    let stage = Stage::new();
    fs::write(
        stage.source().join("config.json"),
        r#"{"model_type": "unknown"}"#,
    )
    .unwrap();
    let lines = |flags: &[&str]| {
        let output = stage.run(&[flags, &["inspect", "source"]].concat());
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(lines(&[]).contains("no table for family"));
    assert_eq!(lines(&["-q"]), "");
    assert!(lines(&["-v"]).contains("INFO") && !lines(&[]).contains("INFO"));
}
