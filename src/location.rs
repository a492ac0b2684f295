//! Where datasets lie, as text: a URL or local path becomes an object store and a path in it.
//!
//! `object_store` reads the URL and builds the store, from the settings that it knows by their names in the environment. What is added here:
//! only those settings are handed on that are meant for the kind of store, what the store cannot do is refused before it is asked, and a URL
//! that may carry a secret is refused without being repeated.

use std::fmt;
use std::path::{Component, PathBuf};
use std::sync::Arc;

use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreScheme, parse_url_opts};
use url::Url;

use crate::error::{Error, Result};

#[cfg(test)]
mod tests;

/// An object store and a path in it, from a URL.
///
/// | URL | store | settings from the environment | feature |
/// | --- | --- | --- | --- |
/// | `file:///data/plays`, or a local path such as `data/plays` | local files | none | |
/// | `memory://` | memory, a new and empty store every time | none | |
/// | `s3://bucket/prefix`, `s3a://…` | S3 and stores that speak its protocol | `AWS_*` | `aws` |
/// | `gs://bucket/prefix` | Google Cloud Storage | `GOOGLE_*`, `SERVICE_ACCOUNT` | `gcp` |
/// | `az://container/prefix`, `abfs://…`, `abfss://…`, `adl://…`, `azure://…` | Azure Blob Storage | `AZURE_*`, `IDENTITY_ENDPOINT` | `azure` |
///
/// The `https` addresses that belong to those three services work as well. Settings have the names and meanings that `object_store` gives them:
/// see [`AmazonS3ConfigKey`], [`GoogleConfigKey`] and [`AzureConfigKey`]. The most common ones for S3 are `AWS_ACCESS_KEY_ID`,
/// `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, `AWS_REGION`, and for a server of one's own `AWS_ENDPOINT` and `AWS_ALLOW_HTTP`. Profiles and
/// files in `~/.aws` are not read. Conditional puts, on which commits rest, are on unless a setting turns them off; then commits are refused.
///
/// Paths in a URL are percent-encoded: `%23` is `#`. A URL has no user, password, query or fragment; credentials come from the environment or
/// as [options](Self::with_options).
///
/// ```
/// use sort_merge_bucket::arrow::array::{ArrayRef, Int64Array, RecordBatch};
/// use sort_merge_bucket::{BucketSpec, Dataset, DatasetWriter, Location};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// let on_disk = format!("file://{}", folder.path().display());
/// for url in [on_disk.as_str(), "memory://"] {
///     let location = Location::from_env(url)?;
///     let ids: ArrayRef = std::sync::Arc::new(Int64Array::from(vec![3, 1, 2]));
///     let rows = RecordBatch::try_from_iter([("user_id", ids)])?;
///     let spec = BucketSpec::new(["user_id"], 4)?;
///     let mut writer = DatasetWriter::builder(location.store(), location.join("users"), rows.schema(), spec).build().await?;
///     writer.write(&rows).await?;
///     writer.commit().await?;
///
///     let users = Dataset::open(location.store(), location.join("users")).await?;
///     assert_eq!(users.statistics().rows, 3);
/// }
/// # Ok(())
/// # }
/// ```
///
/// [`AmazonS3ConfigKey`]: https://docs.rs/object_store/0.13/object_store/aws/enum.AmazonS3ConfigKey.html
/// [`GoogleConfigKey`]: https://docs.rs/object_store/0.13/object_store/gcp/enum.GoogleConfigKey.html
/// [`AzureConfigKey`]: https://docs.rs/object_store/0.13/object_store/azure/enum.AzureConfigKey.html
#[derive(Clone)]
pub struct Location {
    store: Arc<dyn ObjectStore>,
    path: Path,
}

impl Location {
    /// The place that a URL or local path names, its store set up from the environment of the process. Neither reads nor writes anything in the
    /// store; a local folder need not exist.
    ///
    /// # Errors
    /// `InvalidInput`: the URL names no known kind of store, or one whose feature is not enabled; it carries what may be a secret; or the
    /// environment lacks a setting that the store needs.
    pub fn from_env(url: &str) -> Result<Self> {
        // Whatever is not text is no setting, and must not make a program fail that has nothing to do with it.
        let all = std::env::vars_os().filter_map(|(name, value)| name.into_string().ok().zip(value.into_string().ok()));
        Self::new(&parse(url)?, |settings| settings.choose(all))
    }

    /// A local folder, whatever is in its name. It need not exist.
    ///
    /// # Errors
    /// `InvalidInput` if its name is empty.
    pub fn local(folder: impl AsRef<std::path::Path>) -> Result<Self> {
        Self::new(&local(folder.as_ref())?, |_| vec![])
    }

    /// The same with these settings instead of the environment, named as there (`AWS_REGION`) or as in `object_store` (`region`). Names that
    /// the kind of store does not know are ignored.
    ///
    /// # Errors
    /// As [`from_env`](Self::from_env).
    pub fn with_options<K: Into<String>, V: Into<String>>(
        url: &str,
        options: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self> {
        Self::new(&parse(url)?, |_| options.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }

    fn new(url: &Url, options: impl FnOnce(Settings) -> Vec<(String, String)>) -> Result<Self> {
        let scheme = url.scheme();
        let refused = |message: &str| Error::invalid_input(format!("{message}, scheme=`{scheme}`"));
        Path::from_url_path(url.path())
            .map_err(|e| refused("the path of a URL cannot be one in a store").with_source(e))?;
        let (kind, _) = ObjectStoreScheme::parse(url).map_err(|_| {
            refused(match scheme {
                "file" => "a file's URL has three slashes and no host: `file:///path`",
                "memory" => "a store in memory has no host: `memory://` or `memory:///path`",
                _ => "a URL of no known kind of store; known are s3, gs, az, file, memory and local paths",
            })
        })?;
        let settings = Settings::of(&kind).ok_or_else(|| {
            refused("a web server cannot create an object only if there is none, which commits rest on")
        })?;
        let options = options(settings);
        if let Some((name, _)) = options.iter().find(|(_, value)| Url::parse(value).is_ok_and(|url| has_user(&url))) {
            let message = "a setting is a URL with a user or password, which errors would show";
            return Err(Error::invalid_input(format!("{message}, setting=`{name}`")));
        }
        match parse_url_opts(url, options) {
            Ok((store, path)) => Ok(Self { store: store.into(), path }),
            Err(object_store::Error::Generic { store: NO_FEATURE, .. }) => Err(Error::invalid_input(format!(
                "this build has no such store: enable feature `{}` of sort-merge-bucket, scheme=`{scheme}`",
                settings.feature
            ))),
            Err(e) => Err(refused("the store of a URL cannot be set up").with_source(Error::from(e))),
        }
    }

    /// The store, to be handed to writers, datasets and partitions.
    pub fn store(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.store)
    }

    /// The path in the store.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path under this one, such as that of a dataset. A string is split at `/`, and its parts are encoded as [`Path`] does.
    pub fn join(&self, relative: impl Into<Path>) -> Path {
        self.path.parts().chain(relative.into().parts()).collect()
    }
}

/// Kind of store and path, nothing of its settings.
impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Location")
            .field("store", &format_args!("{}", self.store))
            .field("path", &self.path.as_ref())
            .finish()
    }
}

/// As what `object_store` says that it was built without a kind of store.
const NO_FEATURE: &str = "parse_url";

/// What of the environment is meant for a kind of store.
#[derive(Debug, Clone, Copy)]
struct Settings {
    feature: &'static str,
    /// How names of settings begin.
    prefix: Option<&'static str>,
    /// One more name.
    name: Option<&'static str>,
}

impl Settings {
    /// `None` for stores that commits cannot work on.
    fn of(kind: &ObjectStoreScheme) -> Option<Self> {
        let settings = |feature, prefix, name| Some(Self { feature, prefix, name });
        match kind {
            ObjectStoreScheme::AmazonS3 => settings("aws", Some("AWS_"), None),
            ObjectStoreScheme::GoogleCloudStorage => settings("gcp", Some("GOOGLE_"), Some("SERVICE_ACCOUNT")),
            ObjectStoreScheme::MicrosoftAzure => settings("azure", Some("AZURE_"), Some("IDENTITY_ENDPOINT")),
            ObjectStoreScheme::Local | ObjectStoreScheme::Memory => settings("", None, None),
            _ => None,
        }
    }

    /// Without the prefix, a variable `REGION` or `TOKEN` of some other program would be taken for the store's.
    fn choose(self, all: impl Iterator<Item = (String, String)>) -> Vec<(String, String)> {
        let has_prefix = |name: &str| self.prefix.is_some_and(|prefix| name.starts_with(prefix));
        let mut chosen: Vec<_> = all.filter(|(name, _)| has_prefix(name) || self.name == Some(name)).collect();
        // The order of the environment decides nothing: of two names for one setting, the prefixed one counts, then the later one.
        chosen.sort_by_key(|(name, _)| (has_prefix(name), name.clone()));
        chosen
    }
}

fn has_user(url: &Url) -> bool {
    url.password().is_some() || !url.username().is_empty()
}

/// A URL without secrets. Nothing of `text` is in an error but its scheme: until it is understood, any of it may be a secret.
fn parse(text: &str) -> Result<Url> {
    let url = match Url::parse(text) {
        Ok(url) => url,
        Err(url::ParseError::RelativeUrlWithoutBase) if !text.contains("://") => return local(text.as_ref()),
        Err(e) => return Err(Error::invalid_input("the URL of a store cannot be understood").with_source(e)),
    };
    let scheme = url.scheme();
    // In Azure's URLs, the container stands where others have a user.
    let has_container = matches!(scheme, "az" | "abfs" | "abfss") && url.password().is_none();
    if has_user(&url) && !has_container {
        return Err(Error::invalid_input(format!(
            "the URL of a store has a user or password; credentials belong in the environment or in options, scheme=`{scheme}`"
        )));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(Error::invalid_input(format!(
            "the URL of a store has a query or fragment; settings belong in the environment or in options, and in a path `?` is `%3F` and `#` is `%23`, scheme=`{scheme}`"
        )));
    }
    Ok(url)
}

/// The URL of a local path, which begins at the current folder unless it is absolute.
fn local(folder: &std::path::Path) -> Result<Url> {
    let refused = || Error::invalid_input("a local path cannot be the place of a store");
    let mut resolved = PathBuf::new();
    for component in std::path::absolute(folder).map_err(|e| refused().with_source(e))?.components() {
        if component == Component::ParentDir {
            // What is above a link is above its target.
            resolved = resolved.canonicalize().unwrap_or(resolved);
            resolved.pop();
        } else {
            resolved.push(component);
        }
    }
    Url::from_file_path(resolved).map_err(|()| refused())
}
