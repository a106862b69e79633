//! What is to be looked at, and by which backend.

use std::path::{Path, PathBuf};

use tierstack::survey::{Chosen, Part, Survey};
use tierstack::units::Secret;
use tierstack::{Error, Result};

use crate::args::Adopt;

/// A store that is there already.
pub(super) struct Target {
    /// The name of the backend.
    pub(super) backend: &'static str,
    /// What it is called where its parts have no names.
    pub(super) name: String,
    /// Where it is.
    pub(super) settings: Vec<Chosen>,
}

impl Target {
    /// Finds out what it is, and looks at it.
    pub(super) async fn look(args: &Adopt) -> Result<(Self, Survey)> {
        let text = args.target.as_str();
        let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
        let name = rest.rsplit(['/', '@']).find(|part| !part.is_empty()).unwrap_or("main");
        let at = |backend, setting| {
            let mut settings = vec![Chosen::new(setting, quoted(text), "")];
            settings.extend(args.password.as_ref().map(secret));
            Self { backend, name: name.to_owned(), settings }
        };
        match scheme {
            "postgres" | "postgresql" => postgres(args, at("postgres", "url")).await,
            "redis" | "rediss" | "redis+unix" => redis(args, at("redis", "url")).await,
            "" | "file" => {
                if args.password.is_some() {
                    return Err(Error::config(
                        "a file or a folder has no password; leave --password out",
                    ));
                }
                local(Path::new(rest)).await
            }
            _ if args.password.is_some() => Err(Error::config(
                "a bucket has no password; its credentials are in the environment (AWS_..., GOOGLE_..., AZURE_...)",
            )),
            _ => Ok((at("object", "url"), whole("bucket", "Objects under a URL"))),
        }
    }
}

/// A text as YAML on one line.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn secret(secret: &Secret) -> Chosen {
    let value = match secret {
        Secret::Env(name) => format!("{{ env: {} }}", quoted(name)),
        Secret::File(path) => format!("{{ file: {} }}", quoted(&path.to_string_lossy())),
    };
    Chosen::new("password", value, "")
}

/// What is a store as a whole.
fn whole(kind: &str, what: &str) -> Survey {
    let part = Part { kind: kind.into(), ..Part::default() };
    Survey { what: what.into(), facts: Vec::new(), parts: vec![part] }
}

#[allow(dead_code, reason = "all backends may be compiled in")]
fn missing(feature: &str) -> Error {
    Error::config(format!("this build has no backend for it; build with the feature `{feature}`"))
}

#[cfg(feature = "postgres")]
async fn postgres(args: &Adopt, target: Target) -> Result<(Target, Survey)> {
    use tierstack::backends::PostgresConfig;
    let config =
        PostgresConfig { password: args.password.clone(), ..PostgresConfig::new(&*args.target) };
    Ok((target, config.survey().await?))
}

#[cfg(not(feature = "postgres"))]
async fn postgres(_: &Adopt, _: Target) -> Result<(Target, Survey)> {
    Err(missing("postgres"))
}

#[cfg(feature = "redis")]
async fn redis(args: &Adopt, mut target: Target) -> Result<(Target, Survey)> {
    use tierstack::backends::RedisConfig;
    let config = RedisConfig { password: args.password.clone(), ..RedisConfig::new(&*args.target) };
    let mut survey = config.survey().await?;
    for part in &mut survey.parts {
        // The others are found by this one.
        let node = |setting: &Chosen| setting.name == "cluster";
        if let Some(at) = part.settings.iter().position(node) {
            let why = part.settings.remove(at).why;
            target.settings.retain(|setting| setting.name != "url");
            let nodes = format!("[{}]", quoted(&args.target));
            target.settings.insert(0, Chosen::new("cluster", nodes, why));
        }
    }
    Ok((target, survey))
}

#[cfg(not(feature = "redis"))]
async fn redis(_: &Adopt, _: Target) -> Result<(Target, Survey)> {
    Err(missing("redis"))
}

async fn local(path: &Path) -> Result<(Target, Survey)> {
    let path = std::fs::canonicalize(path)
        .map_err(|error| Error::config("there is nothing to look at").with_source(error))?;
    let name = path.file_stem().map_or("main".into(), |name| name.to_string_lossy().into_owned());
    let at = |backend, setting| {
        let settings = vec![Chosen::new(setting, quoted(&path.to_string_lossy()), "")];
        Target { backend, name, settings }
    };
    if path.is_file() {
        return sqlite(path.clone(), at("sqlite", "path")).await;
    }
    if path.join("CURRENT").is_file() {
        return rocksdb(path.clone(), at("rocksdb", "path")).await;
    }
    if cfg!(not(all(feature = "file", unix))) {
        return Err(missing("file"));
    }
    Ok((at("file", "path"), whole("folder", "A folder, each file of which is an entry")))
}

#[cfg(feature = "sqlite")]
async fn sqlite(path: PathBuf, target: Target) -> Result<(Target, Survey)> {
    Ok((target, tierstack::backends::SqliteConfig::new(path).survey().await?))
}

#[cfg(not(feature = "sqlite"))]
async fn sqlite(_: PathBuf, _: Target) -> Result<(Target, Survey)> {
    Err(missing("sqlite"))
}

#[cfg(feature = "rocksdb")]
async fn rocksdb(path: PathBuf, target: Target) -> Result<(Target, Survey)> {
    Ok((target, tierstack::backends::RocksDbConfig::new(path).survey().await?))
}

#[cfg(not(feature = "rocksdb"))]
async fn rocksdb(_: PathBuf, _: Target) -> Result<(Target, Survey)> {
    Err(missing("rocksdb"))
}
