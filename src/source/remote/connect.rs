//! Connections to each kind of store, with the credentials that its own tools would find.

use std::env;
use std::sync::Arc;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, resolve_bucket_region};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::{HeaderMap, ObjectStore};

use super::aws;
use super::connector::{Connector, no_retries, options};
use super::failure::{Attempt, Failure};
use super::runtime;
use super::secrets::Secret;

type Store = Arc<dyn ObjectStore>;

/// A bucket of S3 or of a store that speaks as it does.
pub fn s3(bucket: &str) -> Attempt<Store> {
    let profile = aws::profile();
    let mut builder = AmazonS3Builder::from_env().with_bucket_name(bucket);
    let is_set = |builder: &AmazonS3Builder, key| builder.get_config_value(&key).is_some();
    let endpoint = [AmazonS3ConfigKey::S3Endpoint, AmazonS3ConfigKey::Endpoint];
    let mut endpoint = endpoint
        .iter()
        .find_map(|key| builder.get_config_value(key));
    if endpoint.is_none()
        && let Some(own) = profile.get("endpoint_url")
    {
        builder = builder.with_endpoint(own);
        endpoint = Some(own.to_owned());
    }
    let has_keys = is_set(&builder, AmazonS3ConfigKey::AccessKeyId)
        || is_set(&builder, AmazonS3ConfigKey::WebIdentityTokenFile);
    if !has_keys && let Some(provider) = profile.provider() {
        builder = builder.with_credentials(Arc::new(provider));
    }
    let region = env::var("AWS_REGION")
        .or_else(|_| env::var("AWS_DEFAULT_REGION"))
        .ok();
    let region = region.or_else(|| profile.get("region").map(str::to_owned));
    let region = match (region, &endpoint) {
        (None, None) => region_of(bucket),
        (region, _) => region,
    };
    if let Some(region) = region {
        builder = builder.with_region(region);
    }
    let is_plain = endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"));
    let options = options().with_allow_http(is_plain);
    let builder = builder
        .with_client_options(options)
        .with_retry(no_retries());
    built(builder.with_http_connector(Connector).build())
}

/// Asks AWS where a bucket lies. Without an answer the usual region is tried, whose answer says more.
fn region_of(bucket: &str) -> Option<String> {
    let bucket = bucket.to_owned();
    let options = options();
    let found = runtime::wait(async move { resolve_bucket_region(&bucket, &options).await });
    found.ok()?.ok()
}

/// A bucket of Google Cloud Storage. `STORAGE_EMULATOR_HOST` names an emulator, as for Google's own clients.
pub fn gcs(bucket: &str) -> Attempt<Store> {
    let mut builder = GoogleCloudStorageBuilder::from_env().with_bucket_name(bucket);
    if let Ok(host) = env::var("STORAGE_EMULATOR_HOST") {
        let host = match host.contains("://") {
            true => host,
            false => format!("http://{host}"),
        };
        builder = builder.with_base_url(&host).with_skip_signature(true);
    }
    let options = options().with_allow_http(true);
    let builder = builder
        .with_client_options(options)
        .with_retry(no_retries());
    built(builder.with_http_connector(Connector).build())
}

/// A container of Azure. Its account is in the environment, or behind an `@` of the address.
pub fn azure(store: &str) -> Attempt<Store> {
    let container = store
        .split_once("://")
        .map_or(store, |(_, container)| container);
    let mut settings = connection_string();
    let variables = [
        ("AccountName", "AZURE_STORAGE_ACCOUNT"),
        ("AccountKey", "AZURE_STORAGE_KEY"),
        ("BlobEndpoint", "AZURE_STORAGE_ENDPOINT"),
    ];
    let named = variables
        .iter()
        .filter_map(|(key, name)| Some((key, env::var(name).ok()?)));
    settings.extend(named.map(|(key, value)| ((*key).to_owned(), value)));
    let mut builder = MicrosoftAzureBuilder::from_env();
    let mut is_plain = env::var("AZURE_STORAGE_USE_EMULATOR").is_ok();
    for (key, value) in settings {
        builder = match &*key {
            "AccountName" => builder.with_account(value),
            "AccountKey" => builder.with_access_key(value),
            "BlobEndpoint" => {
                is_plain |= value.starts_with("http://");
                builder.with_endpoint(value)
            }
            _ => builder,
        };
    }
    builder = match container.contains('@') {
        true => builder.with_url(store),
        false => builder.with_container_name(container),
    };
    let options = options().with_allow_http(is_plain);
    let builder = builder
        .with_client_options(options)
        .with_retry(no_retries());
    let reason = "no storage account is named; set AZURE_STORAGE_ACCOUNT_NAME";
    let store = builder.with_http_connector(Connector).build();
    let store = store.map_err(|_| Failure::Unusable(reason.to_owned()))?;
    Ok(Arc::new(store))
}

fn connection_string() -> Vec<(String, String)> {
    let text = env::var("AZURE_STORAGE_CONNECTION_STRING").unwrap_or_default();
    let fields = text.split(';').filter_map(|field| field.split_once('='));
    fields
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// A server of files. Everything that the command line's URL said beside the place goes with each request.
pub fn http(origin: &str, secret: &Secret) -> Attempt<Store> {
    let (scheme, host) = origin.split_once("://").unwrap_or(("https", origin));
    let user = secret.user.iter().map(|user| format!("{user}@"));
    let query = secret.query.iter().map(|query| format!("?{query}"));
    let parts = [format!("{scheme}://")].into_iter().chain(user);
    let parts = parts.chain([format!("{host}/")]).chain(query);
    at(&parts.collect::<String>(), HeaderMap::new())
}

/// The server at `url`, each request to which carries `headers`.
pub fn at(url: &str, headers: HeaderMap) -> Attempt<Store> {
    let options = options()
        .with_allow_http(url.starts_with("http://"))
        .with_default_headers(headers);
    let builder = HttpBuilder::new()
        .with_url(url)
        .with_client_options(options);
    built(
        builder
            .with_retry(no_retries())
            .with_http_connector(Connector)
            .build(),
    )
}

fn built<S: ObjectStore>(store: object_store::Result<S>) -> Attempt<Store> {
    // Errors of builders may show the settings that they find fault with.
    let refused = |_| {
        let reason = "the settings of the store in the environment contradict each other";
        Failure::Unusable(reason.to_owned())
    };
    store.map(|store| Arc::new(store) as Store).map_err(refused)
}
