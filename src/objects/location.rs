//! Where objects are kept: a folder, or a bucket and a path in it; and how it is opened.

use std::fmt;
use std::path::{Path as FilePath, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::local::LocalFileSystem;

#[cfg(feature = "cloud")]
use super::bucket::open as open_bucket;
use super::connection::Connection;
use crate::error::{Error, Result};
use crate::filesystem::make_folder;
use crate::layer::Claim;
use crate::spelling::check_folder;
#[cfg(feature = "object")]
use crate::types::units::SecretText;
use crate::types::units::check_path;

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

/// Quotes nothing that may hold a password.
impl FromStr for Location {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const FORMS: &str =
            "a folder, file:///path, s3://bucket/path, gs://bucket/path or az://container/path";
        let Some((scheme, rest)) = text.split_once("://") else {
            return folder(text.trim(), FORMS);
        };
        let scheme = match scheme {
            "file" => return file(rest),
            "s3" => "s3",
            "gs" => "gs",
            "az" => "az",
            _ => {
                let known = scheme.bytes().all(|byte| byte.is_ascii_alphanumeric());
                let scheme = if known { format!("'{scheme}://'") } else { "this".to_owned() };
                return Err(format!("{scheme} is not known; write {FORMS}"));
            }
        };
        if rest.contains(['@', '?', '#']) {
            return Err(format!(
                "a place is only {scheme}://bucket/path, without `@`, `?` and `#`; credentials and the like are in the options or in the environment"
            ));
        }
        let (bucket, path) = rest.split_once('/').unwrap_or((rest, ""));
        let of_a_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.$".contains(&byte);
        if bucket.is_empty() {
            return Err(format!("'{text}' names no bucket; write {scheme}://bucket/path"));
        }
        if !bucket.bytes().all(of_a_name) {
            return Err(format!(
                "what follows {scheme}:// cannot be the name of a bucket; write {scheme}://bucket/path"
            ));
        }
        let path = path.strip_suffix('/').unwrap_or(path);
        let odd = |segment: &str| matches!(segment, "" | "." | "..") || segment.contains('\\');
        if !path.is_empty()
            && (path.split('/').any(odd) || path.contains(char::is_control) || path.trim() != path)
        {
            return Err(format!(
                "the path in '{text}' has an empty, `.` or `..` segment, a backslash, a control character or white space at an end; write {scheme}://bucket/path"
            ));
        }
        Ok(Self::Bucket { scheme, bucket: bucket.into(), path: path.into() })
    }
}

/// A path, and nothing that is only taken for one: a backup that was to leave the machine would stay on it.
fn folder(text: &str, forms: &str) -> Result<Location, String> {
    let first = text.split('/').next().unwrap_or_default();
    let is_drive = cfg!(windows) && matches!(first.as_bytes(), [_, b':', ..]);
    let slip = ["s3", "gs", "az", "file"]
        .iter()
        .any(|scheme| text.strip_prefix(scheme).is_some_and(|rest| rest.starts_with("//")));
    let slip = slip || text.starts_with("//");
    if first.contains('@') || first.contains([':', '\\']) && !is_drive || slip {
        return Err(format!(
            "this is neither a URL nor clearly a folder, as it begins like an address of another machine; write {forms}, and ./ before the name of a folder that looks so"
        ));
    }
    let path = PathBuf::from(text);
    check_path(&path)
        .map_err(|why| format!("the place {why}; or write a URL, such as s3://bucket/path"))?;
    Ok(Location::Folder(path))
}

fn file(path: &str) -> Result<Location, String> {
    if !path.starts_with('/') {
        return Err("file:// needs an absolute path: file:///path".to_owned());
    }
    // Whether somebody means the byte or the escape of a URL, nobody knows.
    if path.contains(['%', '?', '#']) {
        return Err(
            "file:// with `%`, `?` or `#` can be read in two ways; write the path alone".to_owned()
        );
    }
    check_path(path.as_ref()).map_err(|why| format!("the place {why}"))?;
    Ok(Location::Folder(path.into()))
}

/// A place as it is in a setting. What may be a password is not printed, also of a place that is going
/// to be refused.
pub(crate) struct Shown<'a>(pub(crate) &'a str);

impl fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.contains(['@', '?', '#', ':']) && self.0.parse::<Location>().is_err() {
            f.write_str("<redacted>")
        } else {
            self.0.fmt(f)
        }
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

    /// The place as what a part of a config needs; of a bucket also the server, where the settings name it.
    pub(crate) fn claim(&self, what: &'static str, server: &str) -> Claim {
        match self {
            Self::Folder(path) => Claim::new(what, path),
            Self::Bucket { .. } => Claim::elsewhere(what, self.to_string()).part(server),
        }
    }

    /// What tells the place from others, as far as it can be known without asking.
    #[cfg(feature = "object")]
    pub(crate) fn parts(&self, options: &[(String, SecretText)]) -> Vec<String> {
        match self {
            Self::Folder(path) => {
                let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.clone());
                vec!["folder".to_owned(), path.to_string_lossy().into_owned()]
            }
            Self::Bucket { scheme, bucket, path } => {
                let server = server(scheme, options);
                vec![(*scheme).to_owned(), server, bucket.clone(), path.clone()]
            }
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
            Self::Bucket { scheme, bucket, path } => open_bucket(scheme, bucket, path, connection),
        }
    }
}

/// The server or the account that the options and the environment name, as the client reads them. Without one
/// it is the cloud itself, where the name of a bucket stands for one alone.
#[cfg(feature = "object")]
fn server(scheme: &str, options: &[(String, SecretText)]) -> String {
    let (prefixes, names): (&[&str], &[&str]) = match scheme {
        "s3" => (&["aws_"], &["endpoint_url_s3", "endpoint_url", "endpoint"]),
        "gs" => (&["google_"], &["base_url"]),
        _ => (&["azure_storage_", "azure_"], &["endpoint", "account_name"]),
    };
    let value = |name: &&str| {
        let is_it = |option: &str| {
            option == *name
                || prefixes.iter().any(|prefix| option.strip_prefix(prefix) == Some(name))
        };
        let option = options.iter().find(|(option, _)| is_it(&option.to_ascii_lowercase()));
        let of_environment =
            |prefix: &&str| std::env::var(format!("{prefix}{name}").to_ascii_uppercase()).ok();
        option
            .map(|(_, value)| value.expose().to_owned())
            .or_else(|| prefixes.iter().find_map(of_environment))
    };
    let server = names.iter().find_map(value).unwrap_or_default();
    server.trim_end_matches('/').to_ascii_lowercase()
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
    check_folder(&format!("the folder {}", path.display()), path)?;
    let folder = LocalFileSystem::new_with_prefix(path)
        .map_err(|error| Error::config(context("cannot hold objects")).with_source(error))?;
    let folder = folder.with_fsync(connection.sync);
    #[cfg(all(unix, feature = "object"))]
    if connection.foreign {
        return Ok(Arc::new(super::local_folder::Replacing(folder)));
    }
    Ok(Arc::new(folder))
}

#[cfg(not(feature = "cloud"))]
fn open_bucket(scheme: &str, _: &str, _: &str, _: &Connection) -> Result<Arc<dyn ObjectStore>> {
    Err(Error::config(format!("{scheme}:// needs the feature 'cloud'")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_place_says_what_is_allowed() {
        for (text, word) in [
            ("", "empty"),
            ("s3://", "bucket"),
            ("s3:///path", "bucket"),
            ("s3://a b/path", "name of a bucket"),
            ("s3://acme:80/path", "name of a bucket"),
            ("s3://acme//path", "empty"),
            ("s3://acme/a/../b", "`..`"),
            ("s3://acme/path?x=y", "`?`"),
            ("http://x/y", "s3://"),
            ("sftp://host/path", "s3://"),
            ("S3://acme/path", "s3://"),
            ("file://x", "absolute"),
            ("file:///a%20b", "path alone"),
            ("~/backups", "`~`"),
            ("~ada/backups", "`~`"),
            ("${HOME}/backups", "variable"),
            ("/backups/$HOST", "variable"),
        ] {
            let error = text.parse::<Location>().unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn an_address_of_another_machine_is_never_a_folder() {
        for text in [
            "s3:/acme/orders",
            "s3:acme/orders",
            "s3//acme/orders",
            "gs:acme:/orders",
            "sftp:/host/path",
            "backup@host:/path",
            "ada@host/path",
            "host:/path",
            "host::module/path",
            "\\\\host\\share",
            "C:\\backups",
            "file:/path",
            "//host/share",
        ] {
            let error = text.parse::<Location>().unwrap_err();
            assert!(error.contains("another machine") && error.contains("./"), "{text}: {error}");
            let named = format!("./{text}").parse::<Location>().unwrap();
            assert_eq!(named, Location::Folder(format!("./{text}").into()));
        }
        for text in ["backups", "/a:b/c", "./a@b", "a/b:c", "a b", "ü", ".", "..", "a//b"] {
            assert_eq!(text.parse(), Ok(Location::Folder(text.into())), "{text}");
        }
    }

    #[test]
    fn a_password_in_a_place_is_refused_and_not_quoted() {
        for text in [
            "s3://AKIA:hunter2@acme/orders",
            "s3://hunter2@acme",
            "s3://acme/orders?secret=hunter2",
            "az://acme/x#hunter2",
            "sftp://ada:hunter2@host/path",
            "ada:hunter2@host:/path",
            "hunter2@host/path",
            "ada:hunter2://host",
        ] {
            let error = text.parse::<Location>().unwrap_err();
            assert!(!format!("{error} {:?}", Shown(text)).contains("hunter2"), "{text}: {error}");
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
