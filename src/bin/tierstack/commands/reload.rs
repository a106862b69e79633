//! SIGHUP: what may change while stores are served is taken over, and the rest is named.

use serde::Deserialize as _;
use serde_json::Value;
use tierstack::config::{Config, Registry, ServeConfig, StoreConfig};
use tierstack::layers::cache::CacheConfig;
use tierstack::serve::Server;
use tierstack::units::ByteSize;
use tierstack::{LayerConfig, Stack, Stacks};

use super::serve_section::section;
use crate::args::Serve;
use crate::failure::Outcome;
use crate::log;
use crate::output::say;

/// SIGHUP, where there is such a thing.
pub(super) struct Hangups {
    #[cfg(unix)]
    signals: Option<tokio::signal::unix::Signal>,
}

impl Hangups {
    /// From now on it does not end the process.
    #[cfg(unix)]
    pub(super) fn listen() -> Self {
        use tokio::signal::unix::{SignalKind, signal};
        Self { signals: signal(SignalKind::hangup()).ok() }
    }

    #[cfg(not(unix))]
    pub(super) fn listen() -> Self {
        Self {}
    }

    pub(super) async fn next(&mut self) {
        #[cfg(unix)]
        if let Some(signals) = &mut self.signals
            && signals.recv().await.is_some()
        {
            return;
        }
        std::future::pending().await
    }
}

/// Reads the config again. Tokens, certificates, rights, limits, the level of the log and the capacities of caches are taken over, all
/// or none; what else has changed is said to need a restart. `config` is what runs, before and after.
pub(super) async fn run(
    args: &Serve,
    config: &mut Config,
    server: &Server,
    stacks: &Stacks,
) -> Outcome<ServeConfig> {
    let new = Config::load(&args.config)?;
    let serve = section(&new, args.listen)?;
    // What is wrong with a store is said before anything is taken over.
    Stack::check_all(&new, &Registry::standard())?;
    server.reload(&serve).await?;
    log::set_level(serve.log.as_str());
    resize_caches(config, &new, stacks);
    say(format!(
        "{}: read again; tokens, certificates, rights, limits and the capacities of caches are taken over",
        config.origin().display()
    ));
    let rest = needs_restart(config, &new);
    if !rest.is_empty() {
        say(format!("changed, and taken over by a restart only: {}", rest.join(", ")));
    }
    Ok(serve)
}

/// Gives the caches that run the capacities of the new config, as far as their engines can change, and notes them in the old
/// one.
fn resize_caches(config: &mut Config, new: &Config, stacks: &Stacks) {
    for (name, old) in &mut config.stores {
        let (Some(stack), Some(new)) = (stacks.get(name), new.stores.get(name)) else { continue };
        if old.layers.len() != new.layers.len() {
            continue;
        }
        for (at, (old, new)) in old.layers.iter_mut().zip(&new.layers).enumerate() {
            let is_cache = old.name == CacheConfig::NAME && new.name == old.name;
            let (before, after) = (old.settings.get(CAPACITY), new.settings.get(CAPACITY));
            if is_cache && before != after && stack.resize(at, capacity(after)).is_ok() {
                note(&mut old.settings, after);
            }
        }
    }
}

const CAPACITY: &str = "capacity";

/// The config was checked, so it is a size.
fn capacity(setting: Option<&Value>) -> ByteSize {
    let given = setting.and_then(|setting| ByteSize::deserialize(setting).ok());
    given.unwrap_or_else(|| CacheConfig::default().capacity)
}

fn note(settings: &mut Value, capacity: Option<&Value>) {
    let Value::Object(settings) = settings else { return };
    match capacity {
        Some(capacity) => drop(settings.insert(CAPACITY.to_owned(), capacity.clone())),
        None => drop(settings.remove(CAPACITY)),
    }
}

/// The places of the file that differ, and cannot change under stores that are open.
fn needs_restart(old: &Config, new: &Config) -> Vec<String> {
    let mut places = Vec::new();
    let mut differ = |place: String, differs: bool| {
        if differs {
            places.push(place);
        }
    };
    let names = |config: &Config| config.stores.keys().cloned().collect::<Vec<_>>();
    let mut all = [names(old), names(new)].concat();
    all.sort();
    all.dedup();
    for name in all {
        let (old, new) = (old.stores.get(&name), new.stores.get(&name));
        differ(format!("stores.{name}"), !same(old, new));
    }
    differ("backends".to_owned(), old.backends != new.backends);
    differ("default".to_owned(), old.default != new.default);
    differ("telemetry".to_owned(), old.telemetry != new.telemetry);
    differ("control".to_owned(), old.control != new.control);
    places
}

fn same(old: Option<&StoreConfig>, new: Option<&StoreConfig>) -> bool {
    match (old, new) {
        (Some(old), Some(new)) => {
            old.layers == new.layers && old.backend == new.backend && old.sealed == new.sealed
        }
        _ => false,
    }
}
