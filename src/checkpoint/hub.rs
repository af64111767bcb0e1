//! The local cache of Hugging Face's hub: model `org/model` lies in `models--org--model` (huggingface_hub 1.0, constants.py and
//! file_download.py, `repo_folder_name`).

use std::env;
use std::path::{Path, PathBuf};

/// Returns the folder that the hub's cache has, or would have, for a model such as `meta-llama/Llama-3.1-8B`. None where `name`
/// is no such name.
pub fn folder(name: &Path) -> Option<PathBuf> {
    let (owner, model) = name.to_str()?.split_once('/')?;
    if !is_part(owner) || !is_part(model) {
        return None;
    }
    let folder = cache(&|variable| env::var_os(variable).map(PathBuf::from))?;
    Some(folder.join(format!("models--{owner}--{model}")))
}

/// Whether a text may be the name of an owner or of a model.
fn is_part(text: &str) -> bool {
    let is_plain = |char: char| char.is_ascii_alphanumeric() || "-_.".contains(char);
    text.starts_with(|char: char| char.is_ascii_alphanumeric()) && text.chars().all(is_plain)
}

/// The cache's folder, as the variables of the environment say.
fn cache(variable: &dyn Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    let set = |name: &str| variable(name).filter(|path| !path.as_os_str().is_empty());
    let under = |name: &str, rest: &str| Some(set(name)?.join(rest));
    set("HF_HUB_CACHE")
        .or_else(|| set("HUGGINGFACE_HUB_CACHE"))
        .or_else(|| under("HF_HOME", "hub"))
        .or_else(|| under("XDG_CACHE_HOME", "huggingface/hub"))
        .or_else(|| under("HOME", ".cache/huggingface/hub"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_lies_where_the_first_variable_says() {
        let found = |set: &[(&str, &str)]| {
            let set: Vec<_> = set.to_vec();
            let variable = |name: &str| {
                let mut own = set.iter().filter(|(own, _)| *own == name);
                own.next().map(|(_, value)| PathBuf::from(value))
            };
            cache(&variable)
        };
        let home = ("HOME", "/home/me");
        assert_eq!(found(&[home, ("HF_HOME", "/hf")]), Some("/hf/hub".into()));
        assert_eq!(
            found(&[home, ("HF_HOME", "/hf"), ("HF_HUB_CACHE", "/cache")]),
            Some("/cache".into())
        );
        assert_eq!(
            found(&[home, ("HF_HOME", "")]),
            Some("/home/me/.cache/huggingface/hub".into())
        );
        assert_eq!(found(&[]), None);
    }

    #[test]
    fn paths_are_no_names_of_models() {
        for name in [
            "org",
            "./model",
            "../model",
            "/org/model",
            "org/a/b",
            "org/",
            "a b/c",
        ] {
            assert_eq!(folder(Path::new(name)), None, "{name}");
        }
    }
}
