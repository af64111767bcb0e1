//! `--as npy`: one file for each tensor, as numpy writes it.

use std::fs;
use std::process::Command;

use crate::common::programs::*;

fn export(stage: &Stage, more: &[&str]) {
    let output = stage.run(&[&["export", "source", "out", "--as", "npy"], more].concat());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[test]
fn each_tensor_is_a_file_under_its_module() {
    let stage = Stage::new();
    export(&stage, &["--dtype", "f32"]);
    let file = fs::read(stage.other("out/model/norm/weight.npy")).unwrap();
    let (header, data) = file.split_at(128);
    let dictionary = "{'descr': '<f4', 'fortran_order': False, 'shape': (512,), }";
    assert_eq!(&header[..10], b"\x93NUMPY\x01\x00\x76\x00");
    assert_eq!(header[10..127].trim_ascii_end(), dictionary.as_bytes());
    assert_eq!((header[127], data.len()), (b'\n', 4 * 512));
    assert!(
        stage
            .other("out/model/layers/0/self_attn/q_proj/weight.npy")
            .exists()
    );
    assert!(stage.other("out/config.json").exists());
    assert!(!stage.other("out/model.safetensors").exists());
}

#[test]
fn types_that_numpy_lacks_keep_their_bits() {
    let stage = Stage::new();
    export(&stage, &[]);
    let file = fs::read(stage.other("out/model/norm/weight.npy")).unwrap();
    assert!(String::from_utf8_lossy(&file[..128]).contains("'descr': '<u2'"));
    let source = fs::read(stage.source().join("model.safetensors")).unwrap();
    assert!(source.ends_with(&file[128..]));
}

#[test]
fn numpy_maps_the_files_and_would_write_them_alike() {
    let stage = Stage::new();
    export(&stage, &["--dtype", "f16"]);
    let script = "
import io, pathlib, sys
try:
    import numpy
except ImportError:
    sys.exit(77)
for path in pathlib.Path('out').rglob('*.npy'):
    array = numpy.load(path, mmap_mode='r')
    assert isinstance(array, numpy.memmap) and array.dtype == numpy.float16, path
    written = io.BytesIO()
    numpy.save(written, array)
    assert written.getvalue() == path.read_bytes(), path
print(array.size)
";
    let mut python = Command::new("python3");
    let output = python
        .args(["-c", script])
        .current_dir(stage.other(""))
        .output();
    match output {
        Ok(output) if output.status.code() == Some(0) => {}
        Ok(output) if output.status.code() == Some(77) => eprintln!("SKIPPED: no numpy"),
        Err(error) => eprintln!("SKIPPED: no python3: {error}"),
        Ok(output) => panic!("{output:?}"),
    }
}
