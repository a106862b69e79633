//! What a database is that is there already.

use std::collections::BTreeMap;

use redis::Value as Answer;

use super::config::RedisConfig;
use super::error::odd;
use super::open;
use crate::error::{Error, Operation, Result};
use crate::layer::{BackendConfig, Context};
use crate::types::survey::{Chosen, Part, Survey};
use crate::types::units::counted;

/// Keys whose types are looked at, about.
const LOOKED_AT: usize = 1000;

impl RedisConfig {
    /// Looks at the database of `url`, by commands that only read.
    ///
    /// # Errors
    /// Those of opening the store that are about the server.
    ///
    /// ```no_run
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// use tierstack::backends::RedisConfig;
    ///
    /// let found = RedisConfig::new("redis://127.0.0.1:6379/0").survey().await?;
    /// println!("{}: {:?}", found.what, found.facts);
    /// # Ok::<(), tierstack::Error>(()) }).unwrap();
    /// ```
    pub async fn survey(&self) -> Result<Survey> {
        let looked = look(self).await;
        looked.map_err(|error: Error| error.with_operation(Operation::Open).with_layer(Self::NAME))
    }
}

async fn look(config: &RedisConfig) -> Result<Survey> {
    let operation = Operation::Open;
    config.profile()?;
    let servers = open::servers(config, &Context::default()).await?;
    let all = servers.all(operation).await?;
    let link = all.first().ok_or_else(|| odd(operation))?;
    let told = open::info(&servers, link, operation).await?;
    let fact = |name: &str| told.get(name).map(String::as_str).unwrap_or_default();
    let database = link.client().get_connection_info().redis_settings().db();
    let mut facts = Vec::new();
    let mut settings = Vec::new();
    if fact("role") == "slave" {
        let why = "the server is a replica, which takes no writes and may be behind";
        settings.push(Chosen::new("read_only", "true", why));
    }
    let in_cluster = fact("cluster_enabled") == "1";
    if in_cluster && !config.is_cluster() {
        facts.push("It is a node of a cluster: the others are found through it.".into());
        settings.push(Chosen::new("cluster", "", "the server is a node of a cluster"));
    }
    let size = servers.ask(operation, link, &[redis::cmd("DBSIZE")]).await?;
    let Some(Answer::Int(keys)) = size.first() else { return Err(odd(operation)) };
    let policy = fact("maxmemory_policy");
    if fact("maxmemory") != "0" && policy != "noeviction" {
        let why = format!(
            "its memory is bounded, and `maxmemory-policy {policy}` removes entries when it is full, acknowledged ones too"
        );
        settings.push(Chosen::new("evicts", "true", why));
    }
    let others = fact("connected_clients").parse::<u64>().unwrap_or(1).saturating_sub(1);
    facts.push(format!(
        "{} connected next to this one.",
        match others {
            1 => "One client is".to_owned(),
            n => format!("{n} clients are"),
        }
    ));
    let asked = redis::cmd("SCAN").arg(0).arg("COUNT").arg(LOOKED_AT).take();
    let found = servers.ask(operation, link, &[asked]).await?.into_iter().next();
    let Some(Answer::Array(parts)) = found else { return Err(odd(operation)) };
    let Some(Answer::Array(some)) = parts.into_iter().nth(1) else { return Err(odd(operation)) };
    let kinds = kinds(&servers, link, some).await?;
    let strings = kinds.get("string").copied().unwrap_or(0);
    let others: u64 = kinds.values().sum::<u64>() - strings;
    let listed: Vec<_> = kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    let mut about = vec![counted(keys.unsigned_abs(), "key", "keys")];
    if !listed.is_empty() {
        about.push(format!("of those looked at: {}", listed.join(", ")));
    }
    let why = "scans without an index: each asks for every key; `index: true` keeps one instead, and writes it there";
    settings.push(Chosen::new("scan", "sorted", why));
    if others > 0 {
        let why = "keys of other types than strings stay as they are; without this a scan of everything fails, and counts them";
        settings.push(Chosen::new("foreign", "skip", why));
    }
    let what = match told.get("valkey_version") {
        Some(version) => format!("Valkey {version}"),
        None => format!("Redis {}", fact("redis_version")),
    };
    let part = Part {
        name: format!("db{database}"),
        kind: "database".into(),
        facts: about,
        columns: Vec::new(),
        settings,
    };
    Ok(Survey { what, facts, parts: vec![part] })
}

/// How many keys there are of each type.
async fn kinds(
    servers: &super::router::Servers,
    link: &std::sync::Arc<super::connection::Link>,
    keys: Vec<Answer>,
) -> Result<BTreeMap<String, u64>> {
    let mut kinds = BTreeMap::new();
    let asked = keys.into_iter().filter_map(|key| match key {
        Answer::BulkString(key) => Some(redis::cmd("TYPE").arg(key).take()),
        _ => None,
    });
    let asked: Vec<_> = asked.collect();
    if asked.is_empty() {
        return Ok(kinds);
    }
    for kind in servers.ask(Operation::Open, link, &asked).await? {
        if let Answer::SimpleString(kind) = kind {
            *kinds.entry(kind).or_default() += 1;
        }
    }
    Ok(kinds)
}
