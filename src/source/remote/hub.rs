//! The Hugging Face hub: a revision resolved to a commit once, the files of the commit, and those that lie in the local cache.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use object_store::{HeaderMap, HeaderValue, ObjectStore};
use reqwest::{Client, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::connect;
use super::connector::SILENCE;
use super::failure::{Attempt, Failure, Refusal};
use super::listing::Listing;
use super::patience::persist;
use super::runtime;
use super::version::Version;

/// Where the hub is, unless `HF_ENDPOINT` says otherwise.
const HOME: &str = "https://huggingface.co";

/// Longest answer of the API.
const LONGEST: usize = 64 << 20;

/// A repository at one commit.
#[derive(Debug)]
pub struct Hub {
    pub store: Arc<dyn ObjectStore>,
    /// All files by their paths.
    pub files: BTreeMap<String, Version>,
    /// The folder of the commit in the local cache.
    snapshot: Option<PathBuf>,
}

/// Name and revision of a repository.
#[derive(Debug, Clone)]
struct Repository {
    name: String,
    revision: String,
}

#[derive(Deserialize)]
struct Commit {
    sha: String,
}

/// A file or folder of a listing.
#[derive(Deserialize)]
struct Item {
    r#type: String,
    path: String,
    #[serde(default)]
    size: u64,
}

impl Hub {
    /// Resolves `ORG/REPO@REVISION` to a commit and lists its files.
    pub fn open(named: &str) -> Attempt<Self> {
        let (name, revision) = named.split_once('@').unwrap_or((named, "main"));
        let repository = Repository {
            name: name.to_owned(),
            revision: revision.replace("%2F", "/"),
        };
        let found = runtime::wait(look(repository));
        found.map_err(|error| Failure::Broken(error.to_string()))?
    }

    /// The files and folders right below `folder`.
    pub fn list(&self, folder: &str) -> Listing {
        let start = match folder {
            "" => String::new(),
            folder => format!("{folder}/"),
        };
        let mut listing = Listing::default();
        for (path, version) in &self.files {
            match path.strip_prefix(&start).map(|rest| rest.split_once('/')) {
                None => {}
                Some(Some((inner, _))) => {
                    listing.folders.insert(inner.to_owned());
                }
                Some(None) => {
                    let name = path.get(start.len()..).unwrap_or_default();
                    listing.files.insert(name.to_owned(), version.clone());
                }
            }
        }
        listing
    }

    /// The file of the local cache that holds `path`, if its size is right: blobs are named by their content.
    pub fn cached(&self, path: &str, size: u64) -> Option<PathBuf> {
        let file = self.snapshot.as_ref()?.join(path).canonicalize().ok()?;
        let found = fs::metadata(&file).ok()?;
        (found.is_file() && found.len() == size).then_some(file)
    }
}

async fn look(repository: Repository) -> Attempt<Hub> {
    let api = Api::new()?;
    let Repository { name, revision } = &repository;
    let url = format!(
        "{}/api/models/{name}/revision/{}",
        api.endpoint,
        escaped(revision)
    );
    let commit: Commit = persist(|| api.get(&url)).await?.0;
    if !is_commit(&commit.sha) {
        return Err(Failure::Broken("a commit that is none".to_owned()));
    }
    let mut files = BTreeMap::new();
    let first = format!(
        "{}/api/models/{name}/tree/{}?recursive=true",
        api.endpoint, commit.sha
    );
    let mut next = Some(first);
    while let Some(url) = next {
        let (items, more): (Vec<Item>, _) = persist(|| api.get(&url)).await?;
        let items = items.into_iter().filter(|item| item.r#type == "file");
        files.extend(items.filter_map(named));
        // A page beyond this server is none.
        next = more.filter(|more| more.starts_with(&api.endpoint));
    }
    let base = format!("{}/{name}/resolve/{}/", api.endpoint, commit.sha);
    let mut headers = HeaderMap::new();
    if let Some(token) = &api.token {
        headers.insert("authorization", token.clone());
    }
    Ok(Hub {
        store: connect::at(&base, headers)?,
        files,
        snapshot: snapshot(name, &commit.sha),
    })
}

fn named(item: Item) -> Option<(String, Version)> {
    let is_plain =
        |name: &str| !matches!(name, "" | "." | "..") && !name.chars().any(char::is_control);
    if !item.path.split('/').all(is_plain) {
        return None;
    }
    let version = Version {
        // A commit never changes: the ETag is learnt from the first answer, as redirections have their own.
        etag: None,
        generation: None,
        size: item.size,
        modified: SystemTime::UNIX_EPOCH,
    };
    Some((item.path, version))
}

/// The API, asked with the token of the user.
struct Api {
    client: Client,
    endpoint: String,
    token: Option<HeaderValue>,
}

impl Api {
    fn new() -> Attempt<Self> {
        let unusable = |reason: &str| Failure::Unusable(reason.to_owned());
        let endpoint = env::var("HF_ENDPOINT").unwrap_or_else(|_| HOME.to_owned());
        let client = Client::builder()
            .connect_timeout(SILENCE)
            .read_timeout(SILENCE)
            .build()
            .map_err(|_| unusable("no connections can be made: no certificates are installed"))?;
        let token = match token() {
            None => None,
            Some(token) => {
                let value = HeaderValue::from_str(&format!("Bearer {token}"));
                let mut value = value.map_err(|_| unusable("HF_TOKEN is no token"))?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        Ok(Self {
            client,
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            token,
        })
    }

    /// The document at `url`, and the URL of the next page.
    async fn get<T: DeserializeOwned>(&self, url: &str) -> Attempt<(T, Option<String>)> {
        let mut request = self.client.get(url);
        if let Some(token) = &self.token {
            request = request.header("authorization", token.clone());
        }
        let broken = |_| Failure::Broken("no answer of the hub".to_owned());
        let mut answer = request.send().await.map_err(broken)?;
        if answer.status() != StatusCode::OK {
            return Err(refused(&answer));
        }
        let link = answer
            .headers()
            .get("link")
            .and_then(|link| link.to_str().ok());
        let next = link.and_then(next_page);
        let mut body = Vec::new();
        while let Some(part) = answer.chunk().await.map_err(broken)? {
            if body.len() + part.len() > LONGEST {
                return Err(Failure::Unusable("the hub's answer is too long".to_owned()));
            }
            body.extend_from_slice(&part);
        }
        let document = serde_json::from_slice(&body);
        let document = document.map_err(|_| Failure::Broken("no answer of a hub".to_owned()))?;
        Ok((document, next))
    }
}

fn refused(answer: &reqwest::Response) -> Failure {
    let code = answer.headers().get("x-error-code");
    let code = code.and_then(|code| code.to_str().ok());
    let code = code.filter(|code| code.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    Failure::Refused(Refusal {
        status: answer.status().as_u16(),
        code: code.unwrap_or_default().to_owned(),
        region: None,
    })
}

/// The target of `<URL>; rel="next"`.
fn next_page(link: &str) -> Option<String> {
    let pages = link.split(',').filter_map(|page| page.split_once('>'));
    let mut next = pages.filter(|(_, relation)| relation.contains("rel=\"next\""));
    let (url, _) = next.next()?;
    url.trim().strip_prefix('<').map(str::to_owned)
}

fn is_commit(sha: &str) -> bool {
    sha.len() == 40 && sha.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A revision as one part of a URL.
fn escaped(revision: &str) -> String {
    revision
        .replace('%', "%25")
        .replace('/', "%2F")
        .replace('#', "%23")
        .replace('?', "%3F")
}

/// The token of `HF_TOKEN`, or of the file that `hf auth login` writes.
fn token() -> Option<String> {
    if let Ok(token) = env::var("HF_TOKEN") {
        return Some(token.trim().to_owned()).filter(|token| !token.is_empty());
    }
    let path = env::var_os("HF_TOKEN_PATH").map(PathBuf::from);
    let path = path.or_else(|| Some(home()?.join("token")))?;
    let token = fs::read_to_string(path).ok()?;
    Some(token.trim().to_owned()).filter(|token| !token.is_empty())
}

fn home() -> Option<PathBuf> {
    if let Some(home) = env::var_os("HF_HOME") {
        return Some(PathBuf::from(home));
    }
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(Path::new(&env::var_os("HOME")?).join(".cache")))?;
    Some(cache.join("huggingface"))
}

/// The folder of a commit in the local cache, if it was downloaded in part at least.
fn snapshot(name: &str, sha: &str) -> Option<PathBuf> {
    let cache = env::var_os("HF_HUB_CACHE").map(PathBuf::from);
    let cache = cache.or_else(|| Some(home()?.join("hub")))?;
    let repository = cache.join(format!("models--{}", name.replace('/', "--")));
    let snapshot = repository.join("snapshots").join(sha);
    snapshot.is_dir().then_some(snapshot)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_followed_by_their_relation() {
        let link = "<https://h/a?cursor=x>; rel=\"next\"";
        assert_eq!(next_page(link).as_deref(), Some("https://h/a?cursor=x"));
        assert_eq!(next_page("<https://h/a>; rel=\"prev\""), None);
    }

    #[test]
    fn revisions_are_one_part_of_a_url() {
        assert_eq!(escaped("refs/pr/1"), "refs%2Fpr%2F1");
        assert!(is_commit("0123456789abcdef0123456789abcdef01234567"));
        assert!(!is_commit("main"));
    }
}
