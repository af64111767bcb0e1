//! The files and folders of one folder of a store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use object_store::path::Path as Key;
use object_store::{GetOptions, ObjectStore};
use serde_json::Value;

use super::failure::{Attempt, Failure};
use super::patience::persist;
use super::version::Version;

/// Files and folders by their names. Listings of objects tell sizes and versions too, so that opening asks for nothing.
#[derive(Debug, Default)]
pub struct Listing {
    pub files: BTreeMap<String, Version>,
    pub folders: BTreeSet<String>,
}

impl Listing {
    pub fn is_empty(&self) -> bool {
        self.files.is_empty() && self.folders.is_empty()
    }
}

/// Lists the objects of a bucket below `key`, one level deep.
pub async fn of_bucket(store: Arc<dyn ObjectStore>, key: String) -> Attempt<Listing> {
    let prefix = parsed(&key)?;
    let list = || async {
        let prefix = Some(&prefix).filter(|prefix| !prefix.as_ref().is_empty());
        let listed = store.list_with_delimiter(prefix).await;
        listed.map_err(|error| Failure::of(&error))
    };
    let found = persist(list).await?;
    let name = |key: &Key| key.filename().map(str::to_owned);
    let files = found.objects.iter();
    Ok(Listing {
        files: files
            .filter_map(|meta| Some((name(&meta.location)?, Version::of(meta))))
            .collect(),
        folders: found.common_prefixes.iter().filter_map(name).collect(),
    })
}

/// The version of one object, or `None` where there is none.
pub async fn of_object(store: Arc<dyn ObjectStore>, key: String) -> Attempt<Option<Version>> {
    let key = parsed(&key)?;
    let ask = || async {
        let options = GetOptions::new().with_head(true);
        let answer = store.get_opts(&key, options).await;
        answer.map_err(|error| Failure::of(&error))
    };
    match persist(ask).await {
        Ok(answer) => Ok(Some(Version::of(&answer.meta))),
        Err(failure) if failure.is_absence() => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// The version of one file of a web server. Its first byte is asked for instead of its head: signed URLs allow nothing else,
/// and the answer shows whether ranges are served.
pub async fn of_file(store: Arc<dyn ObjectStore>, key: String) -> Attempt<Option<Version>> {
    let key = parsed(&key)?;
    let ask = || async {
        let options = GetOptions::new().with_range(Some(0..1_u64));
        let answer = store.get_opts(&key, options).await;
        answer.map_err(|error| Failure::of(&error))
    };
    match persist(ask).await {
        Ok(answer) => Ok(Some(Version::of(&answer.meta))),
        // Servers that list nothing may say of a file that is not there that it is forbidden, or of an empty one that it has no byte.
        Err(Failure::Refused(refusal))
            if matches!(refusal.status, 400..=499) && refusal.status != 401 =>
        {
            Ok(None)
        }
        Err(Failure::Changed(_)) => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// Names under which a folder of a web server, which tells no listing, may have files.
pub const PROBED: [&str; 38] = [
    ".metadata",
    "adapter_config.json",
    "adapter_model.bin",
    "adapter_model.safetensors",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "config.json",
    "consolidated.00.pth",
    "consolidated.safetensors",
    "consolidated.safetensors.index.json",
    "generation_config.json",
    "image_processor_config.json",
    "merges.txt",
    "model.safetensors",
    "model.safetensors.index.json",
    "params.json",
    "preprocessor_config.json",
    "processor_config.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
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
    "tokenizer.tiktoken",
    "tokenizer_config.json",
    "train_state_00000.json",
    "video_preprocessor_config.json",
    "vocab.json",
    "vocab.txt",
];

/// Files that are asked for at once.
const AT_ONCE: usize = 16;

/// Longest index.
const LONGEST_INDEX: u64 = 64 << 20;

/// Finds the files of a folder of a web server: those with usual names, and those that an index among them names.
pub async fn of_web_folder(store: Arc<dyn ObjectStore>, key: String) -> Attempt<Listing> {
    let usual = PROBED.iter().map(|name| (*name).to_owned());
    let mut files = probe(&store, &key, usual.collect()).await?;
    let indexes: Vec<String> = { files.keys() }
        .filter(|name| name.ends_with(".index.json"))
        .cloned()
        .collect();
    for index in indexes {
        let size = files.get(&index).map_or(0, |version| version.size);
        let named = shards(&store, &below(&key, &index), size).await?;
        files.extend(probe(&store, &key, named).await?);
    }
    Ok(Listing {
        files,
        folders: BTreeSet::new(),
    })
}

/// Those of `names` that are there.
async fn probe(
    store: &Arc<dyn ObjectStore>,
    folder: &str,
    names: Vec<String>,
) -> Attempt<BTreeMap<String, Version>> {
    let mut found = BTreeMap::new();
    let mut names = names.into_iter();
    let ask = |name: String| {
        let (store, key) = (store.clone(), below(folder, &name));
        async move { Ok::<_, Failure>((name, of_file(store, key).await?)) }
    };
    let mut asked: FuturesUnordered<_> = names.by_ref().take(AT_ONCE).map(ask).collect();
    while let Some(answer) = asked.next().await {
        if let (name, Some(version)) = answer? {
            found.insert(name, version);
        }
        asked.extend(names.next().map(ask));
    }
    Ok(found)
}

/// The names of shards in an index. Opening the checkpoint reads it again, and says what is wrong with it.
async fn shards(store: &Arc<dyn ObjectStore>, key: &str, size: u64) -> Attempt<Vec<String>> {
    if size > LONGEST_INDEX {
        return Ok(Vec::new());
    }
    let key = parsed(key)?;
    let read = || async {
        let whole = GetOptions::new().with_range(Some(0..size));
        let answer = store
            .get_opts(&key, whole)
            .await
            .map_err(|error| Failure::of(&error))?;
        answer.bytes().await.map_err(|error| Failure::of(&error))
    };
    let index: Value = serde_json::from_slice(&persist(read).await?).unwrap_or_default();
    let names = index.get("weight_map").and_then(Value::as_object);
    let names = names
        .into_iter()
        .flat_map(|map| map.values())
        .filter_map(Value::as_str);
    let names: BTreeSet<&str> = names.filter(|name| is_plain(name)).collect();
    Ok(names.into_iter().map(str::to_owned).collect())
}

fn is_plain(name: &str) -> bool {
    !name.contains(['/', '\\'])
        && !matches!(name, "" | "." | "..")
        && !name.chars().any(char::is_control)
}

fn below(folder: &str, name: &str) -> String {
    match folder {
        "" => name.to_owned(),
        folder => format!("{folder}/{name}"),
    }
}

/// A key as the store's client takes it.
pub fn parsed(key: &str) -> Attempt<Key> {
    Key::parse(key)
        .map_err(|_| Failure::Unusable("its name is none that a store can have".to_owned()))
}
