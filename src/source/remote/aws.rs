//! AWS credentials of profiles, which object_store does not read: keys and `credential_process` in `~/.aws`.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

/// How long before their end temporary keys are replaced.
const MARGIN: Duration = Duration::from_secs(120);

/// How long keys without an end are kept.
const USUAL: Duration = Duration::from_secs(900);

/// The settings of one profile.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Profile {
    settings: BTreeMap<String, String>,
}

/// Reads the profile that `AWS_PROFILE` names, or `default`.
pub fn profile() -> Profile {
    let name = env::var("AWS_PROFILE").or_else(|_| env::var("AWS_DEFAULT_PROFILE"));
    let name = name.unwrap_or_else(|_| "default".to_owned());
    let read = |variable: &str, usual: &str| {
        let named = env::var_os(variable).map(PathBuf::from);
        let path = named.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(usual)));
        path.and_then(|path| fs::read_to_string(path).ok())
            .unwrap_or_default()
    };
    let mut settings = section(&read("AWS_CONFIG_FILE", ".aws/config"), &name);
    let credentials = read("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials");
    settings.extend(section(&credentials, &name));
    Profile { settings }
}

/// The settings below `[NAME]` or `[profile NAME]`. Nested settings are indented and left out.
fn section(text: &str, name: &str) -> BTreeMap<String, String> {
    let mut is_inside = false;
    let mut settings = BTreeMap::new();
    for line in text.lines() {
        if let Some(header) = line
            .trim()
            .strip_prefix('[')
            .and_then(|line| line.strip_suffix(']'))
        {
            let header = header.trim();
            is_inside = header.strip_prefix("profile").unwrap_or(header).trim() == name;
        } else if is_inside
            && !line.starts_with([' ', '\t', '#', ';'])
            && let Some((key, value)) = line.split_once('=')
        {
            settings.insert(key.trim().to_owned(), value.trim().to_owned());
        }
    }
    settings
}

impl Profile {
    pub fn get(&self, key: &str) -> Option<&str> {
        self.settings.get(key).map(String::as_str)
    }

    /// Where the profile's keys come from, if it has any.
    pub fn provider(&self) -> Option<Provider> {
        if let Some(command) = self.get("credential_process") {
            return Some(Provider::new(command));
        }
        let key_id = self.get("aws_access_key_id")?.to_owned();
        let secret_key = self.get("aws_secret_access_key")?.to_owned();
        let token = self.get("aws_session_token").map(str::to_owned);
        let credential = AwsCredential {
            key_id,
            secret_key,
            token,
        };
        Some(Provider::Keys(Arc::new(credential)))
    }
}

/// Keys, or the command that prints them.
#[derive(Debug)]
pub enum Provider {
    Keys(Arc<AwsCredential>),
    Command {
        line: String,
        last: Mutex<Option<(SystemTime, Arc<AwsCredential>)>>,
    },
}

impl Provider {
    fn new(line: &str) -> Self {
        Self::Command {
            line: line.to_owned(),
            last: Mutex::default(),
        }
    }
}

/// The keys that a command of `credential_process` prints.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Printed {
    access_key_id: String,
    secret_access_key: String,
    session_token: Option<String>,
    expiration: Option<String>,
}

#[async_trait]
impl CredentialProvider for Provider {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let (line, last) = match self {
            Self::Keys(keys) => return Ok(keys.clone()),
            Self::Command { line, last } => (line.clone(), last),
        };
        let mut last = last.lock().await;
        if let Some((end, keys)) = &*last
            && SystemTime::now() < *end
        {
            return Ok(keys.clone());
        }
        let printed = spawn_blocking(move || run(&line)).await?;
        let (end, keys) = printed.ok_or_else(|| object_store::Error::Generic {
            store: "S3",
            source: "credential_process printed no credentials".into(),
        })?;
        let keys = Arc::new(keys);
        *last = Some((end, keys.clone()));
        Ok(keys)
    }
}

/// Runs a command of the user's own configuration. It is split at spaces outside quotes, as the AWS tools do.
fn run(line: &str) -> Option<(SystemTime, AwsCredential)> {
    let words = words(line);
    let (program, arguments) = words.split_first()?;
    let output = Command::new(Path::new(program))
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let printed: Printed = serde_json::from_slice(&output.stdout).ok()?;
    let end = printed.expiration.as_deref().and_then(time);
    let end = end.and_then(|end| end.checked_sub(MARGIN));
    let credential = AwsCredential {
        key_id: printed.access_key_id,
        secret_key: printed.secret_access_key,
        token: printed.session_token,
    };
    Some((end.unwrap_or_else(|| SystemTime::now() + USUAL), credential))
}

fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let (mut word, mut quote, mut is_open) = (String::new(), None, false);
    for char in line.chars() {
        match quote {
            Some(end) if char == end => quote = None,
            Some(_) => word.push(char),
            None if matches!(char, '"' | '\'') => (quote, is_open) = (Some(char), true),
            None if char.is_whitespace() => {
                if is_open || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                is_open = false;
            }
            None => word.push(char),
        }
    }
    if is_open || !word.is_empty() {
        words.push(word);
    }
    words
}

/// A time as ISO 8601 writes it in UTC: `2026-01-02T03:04:05Z`.
fn time(text: &str) -> Option<SystemTime> {
    let parsed = text.parse::<chrono::DateTime<chrono::Utc>>().ok()?;
    Some(parsed.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_are_told_apart() {
        let text = "[default]\nregion = a\n[profile b]\nregion=c\ns3 =\n  x = y\n# z = 1\n";
        assert_eq!(section(text, "default").get("region").unwrap(), "a");
        let of_b = section(text, "b");
        assert_eq!(
            (of_b.get("region").unwrap(), of_b.get("x")),
            (&"c".to_owned(), None)
        );
        assert!(section(text, "d").is_empty());
    }

    #[test]
    fn commands_print_keys_with_an_end() {
        let line = r#"/bin/echo '{"Version":1,"AccessKeyId":"k","SecretAccessKey":"s","Expiration":"2030-01-02T03:04:05Z"}'"#;
        let (end, keys) = run(line).unwrap();
        assert_eq!((&*keys.key_id, &*keys.secret_key), ("k", "s"));
        assert_eq!(end, time("2030-01-02T03:02:05Z").unwrap());
        assert!(run("/bin/echo no").is_none() && run("").is_none());
        assert_eq!(words(r#"a "b c"  '' d"#), ["a", "b c", "", "d"]);
    }
}
