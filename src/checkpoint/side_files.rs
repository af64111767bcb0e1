//! The files beside the weights that a Hugging Face directory has: config, tokenizer, chat templates.

use std::sync::Arc;

use super::folder::Folder;
use crate::error::Result;
use crate::source::SourceFile;

/// Files that may stand in a Hugging Face directory beside the weights. Code (`*.py`) is left out: it would be run.
const NAMES: [&str; 25] = [
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "config.json",
    "generation_config.json",
    "image_processor_config.json",
    "merges.txt",
    "preprocessor_config.json",
    "processor_config.json",
    "sentencepiece.bpe.model",
    "special_tokens_map.json",
    "spiece.model",
    "tekken.json",
    "tiktoken.model",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer.model.v1",
    "tokenizer.model.v2",
    "tokenizer.model.v3",
    "tokenizer.model.v7",
    "tokenizer_config.json",
    "video_preprocessor_config.json",
    "vocab.json",
    "vocab.txt",
    "tokenizer.tiktoken",
];

/// The folder of further chat templates (transformers 5.23.0).
const TEMPLATES: &str = "additional_chat_templates";

/// A file under its path in the directory.
#[derive(Debug, Clone)]
pub struct SideFile {
    pub path: String,
    pub file: Arc<SourceFile>,
}

/// The side files of a folder.
pub fn side_files(folder: &Folder) -> Result<Vec<SideFile>> {
    let present = folder.names()?;
    let mut paths: Vec<String> = present
        .into_iter()
        .filter(|name| NAMES.contains(&&**name))
        .collect();
    if folder.folders()?.iter().any(|name| name == TEMPLATES) {
        let templates = folder.subfolder(TEMPLATES)?.names()?;
        let templates = templates
            .into_iter()
            .filter(|name| name.ends_with(".jinja"));
        paths.extend(templates.map(|name| format!("{TEMPLATES}/{name}")));
    }
    let open = |path: String| {
        let file = folder.open_file(&path)?;
        Ok(SideFile { path, file })
    };
    paths.into_iter().map(open).collect()
}

#[cfg(all(test, feature = "remote"))]
mod tests {
    use super::NAMES;
    use crate::source::remote::PROBED;

    #[test]
    fn a_web_server_is_asked_for_every_side_file() {
        for name in NAMES {
            assert!(PROBED.contains(&name), "{name}");
        }
    }
}
