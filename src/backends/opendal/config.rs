//! The settings: what they guarantee, and the operator they make.

use std::path::PathBuf;
use std::time::Duration;

use ::opendal::Operator;
use serde::Deserialize;

use super::services::{self, Service, memcached_bytes};
use crate::error::{Error, Result};
use crate::layer::{BackendConfig, Context};
use crate::objects::{
    Names, Naming, Opening, Options, READS_NO_CONDITIONS, Setting, StoreGuarantees,
    check_durability, check_options, read_options,
};
use crate::spelling::check_folder;
use crate::types::units::Span;
use crate::types::{Conditions, Durability, Identity, check_path_of};

/// Settings of the backend `opendal`.
///
/// ```
/// use tierstack::BackendConfig;
/// use tierstack::backends::OpenDalConfig;
/// use tierstack::units::Secret;
///
/// let mut config = OpenDalConfig::new("s3");
/// config.options.insert("bucket".into(), "acme".into());
/// config.options.insert("secret_access_key".into(), Secret::Env("S3_SECRET".into()).into());
/// assert!(config.profile()?.guarantees.ordered_scans);
///
/// let refused = OpenDalConfig::new("s4").profile().unwrap_err();
/// assert!(refused.to_string().contains("s3, swift"));
/// # Ok::<(), tierstack::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "config", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct OpenDalConfig {
    /// The service: `azblob`, `azdls`, `azfile`, `b2`, `cos`, `dropbox`, `fs`, `gcs`, `gdrive`, `memcached`,
    /// `memory`, `obs`, `onedrive`, `oss`, `s3`, `swift`, `webdav` or `webhdfs`.
    pub scheme: String,
    /// Options of the service by OpenDAL's names for them, such as `bucket`, `root`, `endpoint`. Default: none.
    #[serde(default)]
    pub options: Options,
    /// How keys become names. Default: `escaped`. `plain` for names beyond plain ASCII, and for files in
    /// folders.
    #[serde(default)]
    pub names: Names,
    /// Whether scans are offered. Default: true where the service lists all names in order. False for an
    /// S3 directory bucket.
    #[serde(default)]
    pub scans: Option<bool>,
    /// Whether nothing is written, made or tried out: for credentials that may only read. Default: false. Without the right
    /// to list, set `scans: false` too.
    #[serde(default)]
    pub read_only: bool,
    /// Whether a batch can depend on its key being absent. Default: false. Tried out when the store is
    /// opened, which writes a few small objects and removes them.
    #[serde(default)]
    pub conditional_writes: bool,
    /// Whether a put keeps what an object has in addition to its content, as far as the service tells it: content type,
    /// encoding and disposition, cache control, user metadata. Default: true, for buckets; each put is then
    /// preceded by a look at the object. False where tierstack alone writes.
    #[serde(default = "yes")]
    pub keep_attributes: bool,
    /// What an acknowledged write survives. Default: `power_cut` for a bucket, `process_crash` for files, as
    /// nobody tells when they are on the disk. Set it to what your server is known to do.
    #[serde(default)]
    pub durability: Option<Durability>,
    /// The deadline of one request, and of each piece of a body. Default: 30s. What fails for a moment is
    /// tried 3 times in all, so an operation on a service that is gone fails within 4 times as long.
    #[serde(default = "default_timeout")]
    pub timeout: Span,
}

const fn yes() -> bool {
    true
}

const fn default_timeout() -> Span {
    Span(Duration::from_secs(30))
}

impl OpenDalConfig {
    /// The defaults of a service.
    #[must_use]
    pub fn new(scheme: impl Into<String>) -> Self {
        Self {
            scheme: scheme.into(),
            options: Options::new(),
            names: Names::default(),
            scans: None,
            read_only: false,
            conditional_writes: false,
            keep_attributes: true,
            durability: None,
            timeout: default_timeout(),
        }
    }

    pub(super) fn service(&self) -> Result<&'static Service> {
        services::find(&self.scheme).ok_or_else(|| {
            Error::config(format!(
                "`scheme`: '{}' is not compiled in; there are {}",
                self.scheme,
                services::names()
            ))
        })
    }

    pub(super) fn opening(
        &self,
        context: &Context,
        identity: Option<Identity>,
        folder: Option<PathBuf>,
    ) -> Result<Opening> {
        Ok(Opening {
            naming: self.naming()?,
            name_bytes: self.guarantees()?.name_bytes,
            profile: self.profile()?,
            identity,
            folder,
            may_create: context.may_create && !self.read_only,
        })
    }

    /// Where it is, and how keys are named there. `None`: whose account it is, only the service knows.
    pub(super) fn identity(&self, operator: &Operator) -> Option<Identity> {
        let option = |name: &str| {
            self.options.iter().find_map(|(option, value)| match value {
                Setting::Text(text) if option.eq_ignore_ascii_case(name) => Some(text.as_str()),
                _ => None,
            })
        };
        let server = option("endpoint").map(|text| text.trim_end_matches('/').to_ascii_lowercase());
        let info = operator.info();
        if server.is_none() && self.scheme != "fs" {
            return None;
        }
        let parts = [
            self.scheme.as_str(),
            server.as_deref().unwrap_or_default(),
            option("account_name").unwrap_or_default(),
            &info.name(),
            &info.root(),
            &format!("{:?}", self.names),
        ];
        Some(Identity::new(Self::NAME, &parts))
    }

    fn naming(&self) -> Result<Naming> {
        Ok(match self.names {
            Names::Plain if self.scheme == "azblob" => Naming::PlainAzure,
            Names::Plain => Naming::Plain,
            Names::Escaped => self.service()?.naming,
        })
    }

    pub(super) fn guarantees(&self) -> Result<StoreGuarantees> {
        let service = self.service()?;
        check_options(&self.options)?;
        let known = (service.options)();
        let unknown =
            self.options.keys().find(|name| !known.contains(&name.to_ascii_lowercase().as_str()));
        if let Some(name) = unknown {
            return Err(Error::config(format!(
                "`options.{name}` is not known to the service '{}'; there are {}",
                self.scheme,
                known.join(", ")
            )));
        }
        if self.timeout.0.is_zero() {
            return Err(Error::config("`timeout` must be longer than 0s"));
        }
        if self.scans == Some(true) && !service.ordered {
            return Err(Error::config(format!(
                "`scans`: the service '{}' does not list all names in order; leave the setting out",
                self.scheme
            )));
        }
        if self.read_only && self.conditional_writes {
            return Err(Error::config(READS_NO_CONDITIONS));
        }
        if self.conditional_writes && !service.conditional {
            return Err(Error::config(format!(
                "`conditional_writes`: the service '{}' cannot write where an object is absent; leave the setting out",
                self.scheme
            )));
        }
        if let (Some(Setting::Text(root)), "fs") = (self.options.get("root"), &*self.scheme) {
            check_path_of("options.root", root.as_ref())?;
        }
        let root = match self.options.get("root") {
            // A folder is not part of the names within.
            Some(Setting::Text(root)) if service.naming == Naming::Ordered => {
                let root = root.trim_matches('/');
                1 + if self.scheme == "memcached" { memcached_bytes(root) } else { root.len() }
            }
            _ => 0,
        };
        let name_bytes = service.name_bytes.saturating_sub(root);
        let mut key_bytes = match self.names {
            Names::Plain => name_bytes,
            Names::Escaped => self.naming()?.key_bytes(name_bytes.min(service.segment_bytes)),
        };
        if self.scheme == "azblob" && self.names == Names::Escaped {
            // A name has 254 segments at most, and a key of slashes one more than slashes.
            let root = self.options.get("root").map_or(0, |root| match root {
                Setting::Text(root) => root.split('/').count(),
                _ => 1,
            });
            key_bytes = key_bytes.min(253_usize.saturating_sub(root));
        }
        if key_bytes == 0 {
            return Err(Error::config("`options.root` leaves no room for keys; shorten it"));
        }
        Ok(StoreGuarantees {
            durability: check_durability(self.durability, service.durability, service.most)?,
            conditions: if self.conditional_writes {
                Conditions::Absence
            } else {
                Conditions::None
            },
            scans: self.scans.unwrap_or(service.ordered),
            key_bytes,
            name_bytes,
            value_bytes: service.value_bytes,
            place: service.place,
            private: service.place.is_none(),
            writable: !self.read_only,
        })
    }

    pub(super) async fn operator(&self, context: &Context) -> Result<Operator> {
        let _ = self.service()?;
        ::opendal::install_default();
        let mut options: Vec<(String, String)> = read_options(&self.options, context)
            .await?
            .into_iter()
            .map(|(name, value)| (name.to_ascii_lowercase(), value.expose().to_owned()))
            .collect();
        if self.scheme == "fs" {
            place_files(&mut options, context, context.may_create && !self.read_only)?;
        }
        // OpenDAL's words may quote an option.
        Operator::via_iter(&self.scheme, options).map_err(|error| {
            Error::config(format!(
                "`options`: the service '{}' cannot be opened with them: {}",
                self.scheme,
                if error.kind() == ::opendal::ErrorKind::ConfigInvalid {
                    error.message()
                } else {
                    "see its page in OpenDAL's documentation"
                },
            ))
        })
    }

    /// Compares what is guaranteed with what OpenDAL says.
    pub(super) fn check_operator(&self, operator: &Operator) -> Result<()> {
        let (info, guarantees) = (operator.info(), self.guarantees()?);
        let can = info.capability();
        if info.scheme() != self.scheme {
            return Err(Error::config(format!(
                "`scheme` is '{}', but the operator is of the service '{}'",
                self.scheme,
                info.scheme()
            )));
        }
        if !(can.read && (self.read_only || can.write && can.delete)) {
            return Err(Error::config(
                "the service cannot read, write and delete; where it can only be read, set `read_only: true`",
            ));
        }
        if guarantees.scans && !(can.list && can.list_with_recursive) {
            return Err(Error::config(
                "the service does not list all names in order here; set `scans: false`",
            ));
        }
        if guarantees.conditions > Conditions::None && !can.write_with_if_not_exists {
            return Err(Error::config(
                "the service cannot write where an object is absent here; set `conditional_writes: false`",
            ));
        }
        match can.write_total_max_size {
            Some(most) if (most as u64) < guarantees.value_bytes => Err(Error::config(format!(
                "the service takes values of {most} bytes only, fewer than are guaranteed"
            ))),
            _ => Ok(()),
        }
    }
}

/// A file is written next to its place and renamed, so that no reader sees half of it.
fn place_files(
    options: &mut Vec<(String, String)>,
    context: &Context,
    may_create: bool,
) -> Result<()> {
    let Some((_, root)) = options.iter_mut().find(|(name, _)| name == "root") else {
        return Err(Error::config("`options.root` is missing; name the folder of the files"));
    };
    let path = std::path::absolute(context.resolve(root.as_ref()))
        .map_err(|error| Error::io("`options.root` is no path", error))?;
    let text = |path: &std::path::Path| {
        path.to_str().map(str::to_owned).ok_or_else(|| Error::config("`options.root` is not text"))
    };
    *root = text(&path)?;
    // OpenDAL makes both folders where they are missing. Without the second, nothing is put.
    if !may_create {
        check_folder("the folder of `options.root`", &path)?;
        options.retain(|(name, _)| name != "atomic_write_dir");
        return Ok(());
    }
    if !options.iter().any(|(name, _)| name == "atomic_write_dir") {
        options.push(("atomic_write_dir".to_owned(), text(&path.join(".~~tierstack-unfinished"))?));
    }
    Ok(())
}
