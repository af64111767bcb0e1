//! Real checkpoints with damaged metadata: refused, or shown as what they are. CKPTFS_FUZZ_CASES sets how many of each
//! parser are tried and CKPTFS_FUZZ_SEED which.
//!
//! The law. Of a checkpoint whose weights are whole and whose metadata was damaged anywhere, opening and reading end in
//! time, within bounds of memory, with a result or an error of one line. Where the format says everything twice or has a
//! checksum, whatever is shown is the reference itself. Where it says things once, as a pickle does, damage may describe
//! another checkpoint, which cannot be told from the truth; then names and shapes are still those that config.json
//! promises, unless that was damaged itself, and every element shown is an element of weights.
//!
//! A binary of its own: the largest allocation of the process is the cases'.

mod base;
mod bounds;
mod damage;
#[allow(dead_code, reason = "each test binary uses a part")]
#[path = "../hostile/make/mod.rs"]
mod make;
mod run;

use std::fs;

use base::{Base, data};
use run::{Law, fuzz};

#[test]
fn safetensors_headers() {
    let mut base = Base::real("legacy-bin").without("pytorch_model.bin");
    base.add(
        "model.safetensors",
        fs::read(data("legacy-bin/expected.safetensors")).unwrap(),
    );
    fuzz(
        &base.of_safetensors("model.safetensors"),
        Law::AsSafetensorsReads,
    );
}

#[test]
fn zip_directories() {
    let base = Base::real("hf-bin-sharded").of_zip("pytorch_model-00001-of-00004.bin");
    fuzz(&base, Law::Reference);
}

#[test]
fn pickles() {
    let base = Base::real("hf-bin-sharded").of_pickle("pytorch_model-00002-of-00004.bin");
    fuzz(&base, Law::Weights);
}

#[test]
fn legacy_streams() {
    fuzz(
        &Base::real("legacy-bin").of_legacy("pytorch_model.bin"),
        Law::Weights,
    );
}

#[test]
fn dcp_metadata() {
    fuzz(
        &Base::real("dcp-uneven-w3").of_all(".metadata"),
        Law::Weights,
    );
}

#[test]
fn dtensor_specs() {
    let base = Base::real("verl-fsdp2-w2").of_pickle("model_world_size_2_rank_1.pt");
    fuzz(&base, Law::Weights);
}

#[test]
fn indexes() {
    let base = Base::real("hf-bin-sharded").of_all("pytorch_model.bin.index.json");
    fuzz(&base, Law::Reference);
}

#[test]
fn params_of_meta() {
    fuzz(&Base::real("meta-mp2").of_all("params.json"), Law::Elements);
}

#[test]
fn configs() {
    fuzz(
        &Base::real("hf-bin-sharded").of_all("config.json"),
        Law::Elements,
    );
}

#[test]
fn mapping_tables() {
    let mut base = Base::real("meta-mp2");
    let table = concat!(env!("CARGO_MANIFEST_DIR"), "/src/mapping/tables/meta.toml");
    base.add("mapping.toml", fs::read(table).unwrap());
    fuzz(&base.with_mapping("mapping.toml"), Law::Elements);
}
