//! Opening: the settings are checked against what the server says about itself.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use redis::{Client, ConnectionInfo, ProtocolVersion, TlsCertificates, Value as Answer};

use super::cluster::Cluster;
use super::config::{MAX_VALUE_BYTES, RedisConfig, Survives};
use super::connection::{Dial, Link};
use super::error::{odd, refused, said};
use super::router::{Kind, Servers, load_scripts};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::layer::{BackendConfig, Context};
use crate::types::Identity;

/// The servers of the settings, to none of which there is a connection yet.
pub(super) async fn servers(config: &RedisConfig, context: &Context) -> Result<Servers> {
    let ca = config.ca.as_ref().map(|path| {
        let path = context.resolve(path);
        std::fs::read(&path).map_err(|error| {
            Error::config(format!("the certificates in {} cannot be read", path.display()))
                .with_source(error)
        })
    });
    let ca = ca.transpose()?;
    let client = |info: ConnectionInfo| -> Result<Client> {
        let wrong = |error: redis::RedisError| {
            Error::config("the address or the certificates cannot be used").with_source(error)
        };
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let tls = matches!(info.addr(), redis::ConnectionAddr::TcpTls { .. });
        let info = info.set_redis_settings(settings);
        if !tls {
            return Client::open(info).map_err(wrong);
        }
        // Without it rustls cannot choose, and panics, where another crate of the program brings a
        // second provider. One that the program installed stays.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let certificates = TlsCertificates { client_tls: None, root_cert: ca.clone() };
        Client::build_with_tls(info, certificates).map_err(wrong)
    };
    let connections = config.connections(context).await?;
    let clients = connections.into_iter().map(client).collect::<Result<Vec<_>>>()?;
    let dial =
        Dial { clock: Arc::clone(&context.clock), connect_timeout: config.connect_timeout.0 };
    let kind = if config.is_cluster() {
        Kind::Cluster(Cluster::new(clients, dial))
    } else {
        // There is one where it is no cluster.
        let client = clients.into_iter().next().ok_or_else(|| Error::config("`url` is missing"))?;
        Kind::One(Arc::new(Link::new(client, dial)))
    };
    Ok(Servers {
        kind,
        clock: Arc::clone(&context.clock),
        timeout: config.timeout.0,
        closed: AtomicBool::new(false),
    })
}

/// What is to be known of a server.
pub(super) struct Facts {
    /// The largest value that it takes.
    pub(super) largest: u64,
    /// What it calls the history of its data: another one after a failover, a restart, and a copy of another
    /// server's data.
    pub(super) history: Option<String>,
}

/// Names the database, as long as the history of its data goes on.
pub(super) fn identity(
    servers: &[Arc<Link>],
    histories: Vec<Option<String>>,
    prefix: &str,
) -> Option<Identity> {
    let mut histories = histories.into_iter().collect::<Option<Vec<_>>>()?;
    histories.sort();
    let database = servers.first()?.client().get_connection_info().redis_settings().db();
    let parts = [histories.join(","), database.to_string(), prefix.to_owned()];
    Some(Identity::new(RedisConfig::NAME, &parts.each_ref().map(String::as_str)))
}

/// Checks a server against the settings.
pub(super) async fn verify(
    config: &RedisConfig,
    servers: &Servers,
    link: &Arc<Link>,
) -> Result<Facts> {
    let told = info(servers, link, Operation::Open).await?;
    let fact = |name: &str| told.get(name).map(String::as_str);
    check_version(fact("redis_version").unwrap_or_default(), fact("valkey_version"))?;
    match (fact("cluster_enabled"), config.is_cluster()) {
        (Some("1"), false) => {
            return Err(wrong(
                "the server is a node of a cluster; name it in `cluster` in place of `url`",
            ));
        }
        (Some("0"), true) => {
            return Err(wrong(
                "the server is not a node of a cluster; name it as `url` in place of `cluster`",
            ));
        }
        _ => {}
    }
    if fact("role") == Some("slave") && !config.read_only {
        return Err(said(
            ErrorKind::Access,
            "the server is a replica, which takes no writes and may lag behind; name the primary, or set `read_only: true`",
        ));
    }
    if fact("role") == Some("slave") && fact("master_link_status") != Some("up") {
        return Err(said(
            ErrorKind::Unavailable,
            "the server is a replica without a connection to its primary (`master_link_status`)",
        ));
    }
    let full = fact("maxmemory").is_some_and(|bytes| bytes != "0");
    let policy = fact("maxmemory_policy").unwrap_or("noeviction");
    if full && policy != "noeviction" && !config.evicts {
        return Err(wrong(format!(
            "the server evicts entries when its memory is full (`maxmemory-policy {policy}`), also acknowledged ones; set `maxmemory-policy noeviction` there, or accept it with `evicts: true`"
        )));
    }
    if full && policy.starts_with("allkeys") && config.index {
        return Err(wrong(format!(
            "the server may evict the index when its memory is full (`maxmemory-policy {policy}`); set one of the `volatile-` policies there, or leave the `index` out"
        )));
    }
    if config.change_feed {
        // Also what the listener proves itself with.
        let tracking = super::change_feed::tracking(&config.prefix().into_bytes());
        let mut commands = vec![tracking];
        commands.extend(super::change_feed::proving());
        commands.push(redis::cmd("CLIENT").arg("TRACKING").arg("OFF").take());
        if config.is_cluster() {
            commands.push(super::cluster::shards());
        }
        servers.ask(Operation::Open, link, &commands).await?;
    }
    if config.durability != Survives::Nothing {
        if fact("aof_enabled") != Some("1") {
            return Err(wrong(
                "the server keeps no append-only file, so a write survives nothing; set `appendonly yes` there, or `durability: nothing`",
            ));
        }
        let Some(fsync) = setting(servers, link, "appendfsync").await? else {
            return Err(wrong(
                "what a write survives cannot be looked up, as the server does not permit CONFIG GET; permit it, or set `durability: nothing`",
            ));
        };
        check_fsync(config.durability, &fsync)?;
        let paused = setting(servers, link, "no-appendfsync-on-rewrite").await?;
        if config.durability == Survives::PowerCut && paused.as_deref() != Some("no") {
            return Err(wrong(
                "with `no-appendfsync-on-rewrite yes` the server does not fsync while it rewrites its append-only file; set it to `no` there, or a `durability` that guarantees less",
            ));
        }
    }
    let value = setting(servers, link, "proto-max-bulk-len").await?;
    let buffer = setting(servers, link, "client-query-buffer-limit").await?;
    // Reads are plain commands.
    if !config.read_only {
        load_scripts(Operation::Open, link).await?;
    }
    let bytes = |told: Option<String>, most: u64| {
        told.and_then(|bytes| bytes.parse().ok()).unwrap_or(most).min(most)
    };
    // A value that is larger than the buffer costs the connection. What was read of the next command counts, too.
    let buffer = bytes(buffer, u64::MAX).saturating_sub(64 << 10);
    let largest = bytes(value, MAX_VALUE_BYTES).min(buffer);
    Ok(Facts { largest, history: fact("master_replid").map(str::to_owned) })
}

fn wrong(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::config(message).with_layer("redis")
}

fn check_version(redis: &str, valkey: Option<&str>) -> Result<()> {
    let major = redis.split('.').next().and_then(|major| major.parse::<u32>().ok());
    match major {
        Some(major) if major < 7 && valkey.is_none() => Err(said(
            ErrorKind::Unsupported,
            format!("the server is Redis {redis}; Redis 7.0 or Valkey 7.2 is needed"),
        )),
        _ => Ok(()),
    }
}

fn check_fsync(survives: Survives, fsync: &str) -> Result<()> {
    match (survives, fsync) {
        (Survives::Nothing, _) | (_, "always") | (Survives::ProcessCrash, "no") => Ok(()),
        (Survives::ProcessCrash, _) => Err(wrong(
            "with `appendfsync everysec` the server may keep acknowledged writes in its own memory for up to 2 seconds; set `appendfsync always` or `no` there, or `durability: nothing`",
        )),
        (Survives::PowerCut, _) => Err(wrong(format!(
            "with `appendfsync {fsync}` a power cut loses acknowledged writes; set `appendfsync always` there, or a `durability` that guarantees less"
        ))),
    }
}

/// What `INFO` says.
pub(super) async fn info(
    servers: &Servers,
    link: &Arc<Link>,
    operation: Operation,
) -> Result<HashMap<String, String>> {
    let answers = servers.ask(operation, link, &[redis::cmd("INFO")]).await?;
    answers.into_iter().next().and_then(facts).ok_or_else(|| odd(operation))
}

/// What an answer to `INFO` says. `None`: it is none.
pub(super) fn facts(info: Answer) -> Option<HashMap<String, String>> {
    let text = match info {
        Answer::BulkString(text) => String::from_utf8_lossy(&text).into_owned(),
        Answer::VerbatimString { text, .. } | Answer::SimpleString(text) => text,
        _ => return None,
    };
    let facts = text.lines().filter_map(|line| line.trim().split_once(':'));
    Some(facts.map(|(name, fact)| (name.to_owned(), fact.to_owned())).collect())
}

/// A setting of the server. `None`: it does not say.
async fn setting(servers: &Servers, link: &Arc<Link>, name: &str) -> Result<Option<String>> {
    let command = redis::cmd("CONFIG").arg("GET").arg(name).take();
    let found = match servers.ask(Operation::Open, link, &[command]).await {
        Ok(answers) => answers.into_iter().next(),
        Err(error) if matches!(error.kind(), ErrorKind::Access | ErrorKind::Unsupported) => None,
        Err(error) => return Err(error),
    };
    Ok(match found {
        Some(Answer::Map(pairs)) => pairs.into_iter().find_map(|(_, value)| match value {
            Answer::BulkString(value) => String::from_utf8(value).ok(),
            _ => None,
        }),
        Some(Answer::ServerError(error)) => return Err(refused(Operation::Open, &error)),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_second_survives_no_crash() {
        for (survives, fsync, fits) in [
            (Survives::Nothing, "everysec", true),
            (Survives::ProcessCrash, "everysec", false),
            (Survives::ProcessCrash, "no", true),
            (Survives::PowerCut, "no", false),
            (Survives::PowerCut, "everysec", false),
            (Survives::PowerCut, "always", true),
        ] {
            assert_eq!(check_fsync(survives, fsync).is_ok(), fits, "{survives:?} {fsync}");
        }
    }

    #[test]
    fn older_servers_are_refused() {
        assert_eq!(check_version("6.2.14", None).unwrap_err().kind(), ErrorKind::Unsupported);
        assert!(check_version("7.0.15", None).is_ok());
        assert!(check_version("7.2.4", Some("8.0.1")).is_ok());
    }
}
