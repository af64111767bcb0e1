//! verl's `ckpt_contents.json`, written last of a save, which tells where the weights lie (verl 0.9.1,
//! utils/checkpoint/megatron_checkpoint_manager.py, `_build_checkpoint_manifest`).

use serde::Deserialize;

use crate::checkpoint::folder::Folder;
use crate::error::Result;

pub const MANIFEST: &str = "ckpt_contents.json";

#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    contents: Contents,
}

#[derive(Default, Deserialize)]
struct Contents {
    model: Option<Model>,
}

#[derive(Deserialize)]
struct Model {
    path: String,
    /// Where the adapter lies. The shards of Megatron then hold no more than that.
    peft_adapter_path: Option<String>,
}

/// Returns the folder of the weights below `folder`, where a manifest names one that is there.
///
/// # Errors
/// When the manifest is no JSON of this form.
pub fn weights(folder: &Folder) -> Result<Option<String>> {
    if !folder.exists(MANIFEST) {
        return Ok(None);
    }
    let Some(model) = folder.json::<Manifest>(MANIFEST)?.contents.model else {
        return Ok(None);
    };
    let mut paths = model.peft_adapter_path.into_iter().chain([model.path]);
    // Only what `exists` takes lies inside of the checkpoint.
    Ok(paths.find(|path| folder.exists(path) && folder.has_folder(path)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn found(model: &str) -> Option<String> {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("actor/model/huggingface/adapter")).unwrap();
        let text = format!(r#"{{"contents": {{"model": {model}}}, "schema_version": 2}}"#);
        fs::write(root.path().join("actor").join(MANIFEST), text).unwrap();
        weights(&Folder::open(&root.path().join("actor")).unwrap()).unwrap()
    }

    #[test]
    fn a_manifest_tells_where_weights_and_adapters_lie() {
        let own = r#"{"path": "model/huggingface", "format": "huggingface"}"#;
        assert_eq!(found(own).as_deref(), Some("model/huggingface"));
        let adapter =
            r#"{"path": "model/huggingface", "peft_adapter_path": "model/huggingface/adapter"}"#;
        assert_eq!(found(adapter).as_deref(), Some("model/huggingface/adapter"));
        let absent = r#"{"path": "model/huggingface", "peft_adapter_path": "model/none"}"#;
        assert_eq!(found(absent).as_deref(), Some("model/huggingface"));
        assert_eq!(found(r#"{"path": "../actor/model"}"#), None);
        assert_eq!(found("null"), None);
    }
}
