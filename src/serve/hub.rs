//! The API of the Hugging Face hub, as far as its clients need it to read a repository.

use std::sync::Arc;

use hyper::StatusCode;
use hyper::http::request::Parts;
use serde_json::{Value, json};

use super::answer::{Answer, document, file, iso, with};
use super::library::{Item, MAIN, Snapshot};
use super::shared::{Shared, waiting};
use crate::error::Error;

const JSON: &str = "application/json";

/// A request of the API, or of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Wanted<'p> {
    Info(&'p str),
    Tree(&'p str, String),
    Paths(&'p str),
    Refs,
    File(&'p str, String),
}

/// Takes a path apart whose names are decoded. The first is the name of a repository.
fn wanted<'p>(names: &[&'p str]) -> Option<(String, Wanted<'p>)> {
    let rest = |names: &[&str]| names.join("/");
    let (repository, wanted) = match names {
        ["api", "models", rest_of @ ..] => {
            let at = |word: &str| {
                rest_of
                    .iter()
                    .position(|name| *name == word)
                    .filter(|at| matches!(at, 1 | 2))
            };
            let (end, wanted) = if let Some(at) = at("revision") {
                (at, Wanted::Info(rest_of.get(at + 1)?))
            } else if let Some(at) = at("tree") {
                (
                    at,
                    Wanted::Tree(rest_of.get(at + 1)?, rest(rest_of.get(at + 2..)?)),
                )
            } else if let Some(at) = at("paths-info") {
                (at, Wanted::Paths(rest_of.get(at + 1)?))
            } else if let Some(at) = at("refs") {
                (at, Wanted::Refs)
            } else {
                (rest_of.len(), Wanted::Info(MAIN))
            };
            (rest(rest_of.get(..end)?), wanted)
        }
        _ => {
            let at = names
                .iter()
                .position(|name| *name == "resolve")
                .filter(|at| matches!(at, 1 | 2))?;
            let path = rest(names.get(at + 2..)?);
            (
                rest(names.get(..at)?),
                Wanted::File(names.get(at + 1)?, path),
            )
        }
    };
    let is_name = !repository.is_empty() && repository.split('/').count() <= 2;
    is_name.then_some((repository, wanted))
}

/// Whether a request is one of the hub's.
pub fn is_hubs(names: &[&str]) -> bool {
    wanted(names).is_some()
}

/// Answers a request. `body` is that of a POST.
pub async fn answer(shared: &Arc<Shared>, request: &Parts, names: &[&str], body: &[u8]) -> Answer {
    let Some((repository, wanted)) = wanted(names) else {
        return refused(StatusCode::NOT_FOUND, "RepoNotFound", "No such path");
    };
    if shared
        .repository
        .as_ref()
        .is_some_and(|own| *own != repository)
    {
        return refused(
            StatusCode::NOT_FOUND,
            "RepoNotFound",
            "Repository not found",
        );
    }
    let revision = match &wanted {
        Wanted::Refs => MAIN,
        Wanted::Info(revision)
        | Wanted::Tree(revision, _)
        | Wanted::Paths(revision)
        | Wanted::File(revision, _) => revision,
    };
    let (library, named) = (shared.clone(), revision.to_owned());
    let snapshot = match waiting(move || library.library.revision(&named)).await {
        Ok(Some(snapshot)) => snapshot,
        Ok(None) => {
            return refused(
                StatusCode::NOT_FOUND,
                "RevisionNotFound",
                "Revision not found",
            );
        }
        Err(error) => return failed(&error),
    };
    let query = request.uri.query().unwrap_or_default();
    let answered = match wanted {
        Wanted::Info(_) => listed(info(&repository, &snapshot, query)),
        Wanted::Tree(_, folder) => match tree(&snapshot, &folder, query) {
            Some(items) => listed(items),
            None => absent(),
        },
        Wanted::Paths(_) => listed(paths(&snapshot, body)),
        Wanted::Refs => listed(refs(shared, &snapshot).await),
        Wanted::File(_, path) => match snapshot.files.get(&path) {
            Some(item) => file(&shared.reader, item, request)
                .await
                .unwrap_or_else(|error| failed(&error)),
            None => absent(),
        },
    };
    with(answered, "x-repo-commit", &snapshot.commit)
}

fn info(repository: &str, snapshot: &Snapshot, query: &str) -> Value {
    let has_sizes = query.contains("blobs=");
    let file = |(path, item): (&String, &Item)| match has_sizes {
        true => json!({"rfilename": path, "size": item.file.size(), "blobId": bare(item)}),
        false => json!({"rfilename": path}),
    };
    let files: Vec<Value> = snapshot.files.iter().map(file).collect();
    let time = iso(snapshot.modified);
    json!({
        "_id": snapshot.commit, "id": repository, "modelId": repository, "sha": snapshot.commit,
        "private": false, "gated": false, "disabled": false, "tags": [], "downloads": 0, "likes": 0,
        "library_name": "transformers", "lastModified": time, "createdAt": time, "siblings": files,
    })
}

/// The entries of a folder, with those of its folders if the request says so.
fn tree(snapshot: &Snapshot, folder: &str, query: &str) -> Option<Value> {
    let is_recursive = query
        .split('&')
        .any(|field| matches!(field, "recursive=true" | "recursive=True" | "recursive=1"));
    let (files, folders) = snapshot.folder(folder);
    if files.is_empty() && folders.is_empty() && !folder.is_empty() {
        return None;
    }
    let mut items = Vec::new();
    add(snapshot, folder, is_recursive, &mut items);
    Some(Value::Array(items))
}

fn add(snapshot: &Snapshot, folder: &str, is_recursive: bool, items: &mut Vec<Value>) {
    let (files, folders) = snapshot.folder(folder);
    items.extend(files.into_iter().map(|(path, item)| entry(path, item)));
    for folder in folders {
        items.push(json!({"type": "directory", "path": folder, "size": 0, "oid": snapshot.commit}));
        if is_recursive {
            add(snapshot, folder, is_recursive, items);
        }
    }
}

fn entry(path: &str, item: &Item) -> Value {
    json!({"type": "file", "path": path, "size": item.file.size(), "oid": bare(item)})
}

/// The entries that the body of a request names, as JSON or as a form.
fn paths(snapshot: &Snapshot, body: &[u8]) -> Value {
    let named: Vec<String> = match serde_json::from_slice::<Value>(body) {
        Ok(asked) => {
            let one_or_several = asked.get("paths").cloned().unwrap_or_default();
            let several = one_or_several
                .as_array()
                .cloned()
                .unwrap_or_else(|| vec![one_or_several]);
            several
                .iter()
                .filter_map(|path| path.as_str().map(str::to_owned))
                .collect()
        }
        Err(_) => url::form_urlencoded::parse(body)
            .filter(|(name, _)| name == "paths")
            .map(|(_, path)| path.into_owned())
            .collect(),
    };
    let found = named.iter().filter_map(|path| {
        let path = path.trim_matches('/');
        if let Some(item) = snapshot.files.get(path) {
            return Some(entry(path, item));
        }
        let (files, folders) = snapshot.folder(path);
        let is_folder = !files.is_empty() || !folders.is_empty();
        is_folder
            .then(|| json!({"type": "directory", "path": path, "size": 0, "oid": snapshot.commit}))
    });
    Value::Array(found.collect())
}

/// The saves of a run are tags.
async fn refs(shared: &Arc<Shared>, snapshot: &Snapshot) -> Value {
    let library = shared.clone();
    let saves = waiting(move || Ok(library.library.saves()))
        .await
        .unwrap_or_default();
    let tag = |name: &String| json!({"name": name, "ref": format!("refs/tags/{name}"), "targetCommit": snapshot.commit});
    json!({
        "branches": [{"name": MAIN, "ref": format!("refs/heads/{MAIN}"), "targetCommit": snapshot.commit}],
        "tags": saves.iter().map(tag).collect::<Vec<_>>(),
        "converts": [],
    })
}

fn bare(item: &Item) -> &str {
    item.etag.trim_matches('"')
}

fn listed(value: Value) -> Answer {
    document(StatusCode::OK, JSON, value.to_string())
}

fn absent() -> Answer {
    refused(StatusCode::NOT_FOUND, "EntryNotFound", "Entry not found")
}

fn failed(error: &Error) -> Answer {
    tracing::warn!("{error}");
    refused(StatusCode::BAD_GATEWAY, "", "The source cannot be read")
}

/// An error as the hub's clients read it.
pub fn refused(status: StatusCode, code: &str, message: &str) -> Answer {
    let answer = document(status, JSON, json!({"error": message}).to_string());
    let answer = match code {
        "" => answer,
        code => with(answer, "x-error-code", code),
    };
    with(answer, "x-error-message", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(path: &str) -> Option<(String, Wanted<'_>)> {
        wanted(&path.split('/').collect::<Vec<_>>())
    }

    #[test]
    fn repositories_have_one_name_or_two() {
        let own = |name: &str, wanted| Some((name.to_owned(), wanted));
        assert_eq!(of("api/models/a/b"), own("a/b", Wanted::Info("main")));
        assert_eq!(
            of("api/models/gpt2/revision/x"),
            own("gpt2", Wanted::Info("x"))
        );
        assert_eq!(
            of("api/models/a/b/tree/x/f/g"),
            own("a/b", Wanted::Tree("x", "f/g".to_owned()))
        );
        assert_eq!(
            of("a/b/resolve/x/f/g"),
            own("a/b", Wanted::File("x", "f/g".to_owned()))
        );
        assert_eq!(
            of("a/resolve/x/f"),
            own("a", Wanted::File("x", "f".to_owned()))
        );
        assert_eq!(of("api/models/a/b/refs"), own("a/b", Wanted::Refs));
        for path in [
            "",
            "a/b",
            "api/models",
            "a/b/c/resolve/x/f",
            "api/datasets/a/b",
        ] {
            assert_eq!(of(path), None, "{path}");
        }
    }
}
