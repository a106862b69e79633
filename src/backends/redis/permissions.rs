//! What the user may do, looked up when the store is opened.
//!
//! A command may need rights of its own for what it does in addition: a read looks up the deadline, a put gives what was
//! there. What is missing is named here, and not by the first operation that fails.

use std::sync::Arc;

use redis::{Cmd, Value as Answer};

use super::command::Place;
use super::config::RedisConfig;
use super::connection::Link;
use super::error::{Forbidden, forbidden, lacks, said};
use super::router::Servers;
use crate::error::{Error, ErrorKind, Operation, Result};

/// Refuses a user that cannot read, or can write and not in every way. A user who only reads is fine. Without an index
/// nothing is said about keys: nobody knows which ones will be used.
pub(super) async fn verify(
    servers: &Servers,
    place: &Place,
    config: &RedisConfig,
    link: &Arc<Link>,
) -> Result<()> {
    let key = [&*place.prefix, b"\0tierstack/rights"].concat();
    let on_key = |name: &str| redis::cmd(name).arg(&*key).take();
    // It does nothing: it contradicts itself.
    let set = on_key("SET").arg("").arg("NX").arg("XX").arg("GET").take();
    let mut rights = redis::cmd("EVALSHA");
    rights.arg(&place.rights).arg(0).arg(&*key);
    rights.arg(&place.index);
    let mut reading = vec!["get", "mget", "pexpiretime", "multi", "exec"];
    let mut commands: Vec<Cmd> = ["GET", "MGET", "PEXPIRETIME"].map(on_key).into();
    commands.extend([redis::cmd("MULTI"), redis::cmd("EXEC")]);
    if config.scan.is_some() {
        reading.extend(["scan", "type"]);
        commands.extend([redis::cmd("SCAN").arg(0).take(), on_key("TYPE")]);
        if config.is_cluster() {
            reading.push("cluster|nodes");
            commands.push(super::walk::nodes());
        }
    }
    if !config.read_only {
        commands.extend([set, rights]);
    }
    let answers = servers.answers(Operation::Open, link, &commands).await?;

    let mut lacking = Lacking::default();
    let mut answers = answers.into_iter();
    for (name, answer) in reading.into_iter().zip(answers.by_ref()) {
        lacking.note(name, &answer);
    }
    lacking.refuse(place)?;
    if config.read_only {
        return Ok(());
    }
    let mut writing = Lacking::default();
    for (name, answer) in ["set", "evalsha"].into_iter().zip(answers.by_ref()) {
        writing.note(name, &answer);
        if let Answer::Array(forbidden) = &answer {
            for pair in forbidden.chunks_exact(2) {
                if let [Answer::BulkString(name), Answer::BulkString(why)] = pair {
                    writing.say(
                        &String::from_utf8_lossy(name),
                        "ERR",
                        &String::from_utf8_lossy(why),
                    );
                }
            }
        }
    }
    let has = |name: &str| writing.commands.iter().any(|lacking| lacking == name);
    let reads_only = has("set") && (has("evalsha") || has("del"));
    if reads_only && place.index.is_none() {
        return Ok(());
    }
    if reads_only {
        // Scans are scripts. What they and the upkeep write is nothing that was asked for.
        let upkeep = ["set", "del", "zadd", "zrem"];
        writing.commands.retain(|name| !upkeep.contains(&name.as_str()));
    }
    writing.refuse(place)
}

/// What a user lacks.
#[derive(Default)]
struct Lacking {
    commands: Vec<String>,
    keys: bool,
}

impl Lacking {
    fn note(&mut self, name: &str, answer: &Answer) {
        if let Answer::ServerError(error) = answer {
            self.say(name, error.code(), error.details().unwrap_or_default());
        }
    }

    fn say(&mut self, name: &str, code: &str, detail: &str) {
        match forbidden(code, detail) {
            Some(Forbidden::Command(_)) if self.commands.iter().any(|known| known == name) => {}
            Some(Forbidden::Command(_)) => self.commands.push(name.to_owned()),
            Some(Forbidden::Key) => self.keys = true,
            None => {}
        }
    }

    fn refuse(&self, place: &Place) -> Result<(), Error> {
        if !self.commands.is_empty() {
            let names: Vec<&str> = self.commands.iter().map(String::as_str).collect();
            return Err(lacks(&names).with_operation(Operation::Open));
        }
        if self.keys && place.index.is_some() {
            let message = "the user may not use every key of the store, which an `index` needs; give it ~* on the server, or keys of their own under a `hash_tag`, such as ~{tag}*";
            return Err(said(ErrorKind::Access, message).with_operation(Operation::Open));
        }
        Ok(())
    }
}
