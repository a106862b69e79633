//! Where objects are kept: a folder, or a bucket and a path in it; and how it is opened.

use std::fmt;
use std::path::{Path as FilePath, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use object_store::ObjectStore;
use object_store::local::LocalFileSystem;

use crate::disk::make_folder;
use crate::error::{Error, Result};
use crate::types::units::SecretText;

/// Where objects are kept: those of a backup, or the entries of the backend `object`.
///
/// A plain path or `file://` is a folder; `s3://bucket/path`, `gs://bucket/path` and
/// `az://container/path` are object storage and need the feature `cloud`. Credentials, region and
/// endpoint come from the environment: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`,
/// `AWS_ENDPOINT` (with `AWS_ALLOW_HTTP=true` for a server without TLS),
/// `GOOGLE_SERVICE_ACCOUNT`, `AZURE_STORAGE_ACCOUNT_NAME`, `AZURE_STORAGE_ACCOUNT_KEY`, and the
/// others that `object_store` reads.
///
/// ```
/// use tierstack::backup::Location;
///
/// assert_eq!("./backups".parse(), Ok(Location::Folder("./backups".into())));
/// assert_eq!("file:///var/backups".parse(), Ok(Location::Folder("/var/backups".into())));
/// assert!(matches!("s3://acme/orders".parse(), Ok(Location::Bucket { .. })));
/// assert!("ftp://acme/orders".parse::<Location>().is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A folder of the file system.
    Folder(PathBuf),
    /// Object storage.
    Bucket {
        /// `s3`, `gs` or `az`.
        scheme: &'static str,
        /// The bucket or container.
        bucket: String,
        /// The path within it. May be empty.
        path: String,
    },
}

impl FromStr for Location {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return match text.trim() {
                "" => Err("the place is empty; write a folder or a URL".to_owned()),
                path => Ok(Self::Folder(path.into())),
            };
        };
        let scheme = match scheme {
            "file" if rest.starts_with('/') => return Ok(Self::Folder(rest.into())),
            "file" => return Err(format!("'{text}' needs an absolute path: file:///path")),
            "s3" => "s3",
            "gs" => "gs",
            "az" => "az",
            _ => {
                return Err(format!(
                    "'{scheme}://' is not known; write a folder, file:///path, s3://bucket/path, \
                     gs://bucket/path or az://container/path"
                ));
            }
        };
        let (bucket, path) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Err(format!("'{text}' names no bucket; write {scheme}://bucket/path"));
        }
        Ok(Self::Bucket { scheme, bucket: bucket.into(), path: path.trim_matches('/').into() })
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) => path.display().fmt(f),
            Self::Bucket { scheme, bucket, path } => write!(f, "{scheme}://{bucket}/{path}"),
        }
    }
}

impl Location {
    /// The same place, with a relative folder taken from `folder`.
    #[must_use]
    pub fn within(self, folder: &FilePath) -> Self {
        match self {
            Self::Folder(path) => Self::Folder(folder.join(path)),
            bucket @ Self::Bucket { .. } => bucket,
        }
    }

    /// Checks what can be checked without asking anybody.
    ///
    /// # Errors
    /// `Config` if the place needs a feature that was not compiled in.
    pub fn check(&self) -> Result<()> {
        match self {
            Self::Bucket { scheme, .. } if !cfg!(feature = "cloud") => Err(Error::config(format!(
                "{scheme}:// needs the feature 'cloud'; build with --features cloud, or use a folder"
            ))),
            _ => Ok(()),
        }
    }

    /// The object store at this place. `create` makes a folder that is not there. Sends no request.
    ///
    /// # Errors
    /// `Config` if settings are missing or wrong, `InvalidInput` if the folder is not there.
    pub(crate) fn objects(
        &self,
        create: bool,
        connection: &Connection,
    ) -> Result<Arc<dyn ObjectStore>> {
        self.check()?;
        match self {
            Self::Folder(path) => open_folder(path, create, connection),
            Self::Bucket { scheme, bucket, path } => cloud::open(scheme, bucket, path, connection),
        }
    }
}

/// How a place is talked to.
#[derive(Clone, Debug)]
#[cfg_attr(
    not(feature = "cloud"),
    allow(dead_code, reason = "only buckets have a line to wait for")
)]
pub(crate) struct Connection {
    /// The deadline of one request.
    pub(crate) timeout: Duration,
    /// How often, and for how long, a request is repeated.
    pub(crate) retries: usize,
    pub(crate) retry_for: Duration,
    /// Whether a file is on the disk before a put is acknowledged.
    pub(crate) sync: bool,
    /// What the environment does not say, or says otherwise, by `object_store`'s names.
    pub(crate) options: Vec<(String, SecretText)>,
}

/// Of a repository: a pack of 16 MiB must get through a slow line, and an acknowledged backup
/// survives a power cut.
impl Default for Connection {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(600),
            retries: 10,
            retry_for: Duration::from_secs(180),
            sync: true,
            options: Vec::new(),
        }
    }
}

fn open_folder(
    path: &FilePath,
    create: bool,
    connection: &Connection,
) -> Result<Arc<dyn ObjectStore>> {
    if let Some((name, _)) = connection.options.first() {
        return Err(Error::config(format!("`options.{name}`: a folder has no options")));
    }
    let context = |what: &str| format!("the folder {} {what}", path.display());
    if create {
        make_folder(path).map_err(|error| Error::io(context("cannot be created"), error))?;
    }
    std::fs::read_dir(path).map_err(|error| Error::io(context("cannot be read"), error))?;
    let folder = LocalFileSystem::new_with_prefix(path)
        .map_err(|error| Error::config(context("cannot hold objects")).with_source(error))?;
    Ok(Arc::new(folder.with_fsync(connection.sync)))
}

#[cfg(not(feature = "cloud"))]
mod cloud {
    use super::{Arc, Connection, Error, ObjectStore, Result};

    pub(super) fn open(
        scheme: &str,
        _: &str,
        _: &str,
        _: &Connection,
    ) -> Result<Arc<dyn ObjectStore>> {
        Err(Error::config(format!("{scheme}:// needs the feature 'cloud'")))
    }
}

#[cfg(feature = "cloud")]
mod cloud {
    use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
    use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
    use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
    use object_store::path::Path;
    use object_store::prefix::PrefixStore;
    use object_store::{BackoffConfig, ClientConfigKey, RetryConfig};

    use super::{Arc, Connection, Error, ObjectStore, Result};

    /// A client from the environment and the options.
    macro_rules! client {
        ($builder:ty, $key:ty, $connection:expr) => {{
            let connection: &Connection = $connection;
            let retry = RetryConfig {
                backoff: BackoffConfig::default(),
                max_retries: connection.retries,
                retry_timeout: connection.retry_for,
            };
            let timeout = <$key>::Client(ClientConfigKey::Timeout);
            let mut builder = <$builder>::from_env()
                .with_config(timeout, format!("{}ms", connection.timeout.as_millis()))
                .with_retry(retry);
            for (name, value) in &connection.options {
                let key: $key = name.to_ascii_lowercase().parse().map_err(|_| {
                    Error::config(format!(
                        "`options.{name}` is not known; options are named as in `object_store`, such as endpoint, region, allow_http"
                    ))
                })?;
                builder = builder.with_config(key, value.expose());
            }
            builder
        }};
    }

    pub(super) fn open(
        scheme: &str,
        bucket: &str,
        path: &str,
        connection: &Connection,
    ) -> Result<Arc<dyn ObjectStore>> {
        // The client's words may quote an option, so they are not kept.
        let wrong = |_: object_store::Error| {
            Error::config(format!(
                "{scheme}://{bucket} cannot be opened with these options and this environment"
            ))
        };
        let store: Arc<dyn ObjectStore> = match scheme {
            "s3" => {
                let builder = client!(AmazonS3Builder, AmazonS3ConfigKey, connection);
                Arc::new(builder.with_bucket_name(bucket).build().map_err(wrong)?)
            }
            "gs" => {
                let builder = client!(GoogleCloudStorageBuilder, GoogleConfigKey, connection);
                Arc::new(builder.with_bucket_name(bucket).build().map_err(wrong)?)
            }
            _ => {
                let builder = client!(MicrosoftAzureBuilder, AzureConfigKey, connection);
                Arc::new(builder.with_container_name(bucket).build().map_err(wrong)?)
            }
        };
        let path = Path::parse(path).map_err(|error| {
            Error::config(format!("'{path}' cannot be a path in a bucket")).with_source(error)
        })?;
        Ok(Arc::new(PrefixStore::new(store, path)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_place_says_what_is_allowed() {
        for (text, word) in
            [("", "empty"), ("s3://", "bucket"), ("http://x/y", "s3://"), ("file://x", "absolute")]
        {
            let error = text.parse::<Location>().unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn a_relative_folder_is_taken_from_the_config_file_and_a_bucket_is_not() {
        let folder: Location = "backups".parse().unwrap();
        assert_eq!(folder.within("/etc/app".as_ref()).to_string(), "/etc/app/backups");
        let bucket: Location = "s3://acme/a/b/".parse().unwrap();
        assert_eq!(bucket.within("/etc/app".as_ref()).to_string(), "s3://acme/a/b");
    }

    #[cfg(not(feature = "cloud"))]
    #[test]
    fn a_bucket_without_its_feature_names_the_feature() {
        let bucket: Location = "s3://acme/a".parse().unwrap();
        let error = bucket.check().unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Config);
        assert!(error.to_string().contains("'cloud'"), "{error}");
    }

    #[test]
    fn a_folder_that_is_not_there_is_created_only_when_asked() {
        let folder = tempfile::tempdir().unwrap();
        let place = Location::Folder(folder.path().join("a/b"));
        let connection = Connection::default();
        assert!(place.objects(false, &connection).is_err());
        place.objects(true, &connection).unwrap();
        place.objects(false, &connection).unwrap();
    }
}
