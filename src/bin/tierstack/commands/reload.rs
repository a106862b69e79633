//! SIGHUP: what may change while stores are served is taken over, and the rest is named.

use tierstack::config::{Config, ServeConfig, StoreConfig};
use tierstack::serve::Server;

use super::serve::{say, section};
use crate::args::Serve;
use crate::failure::Outcome;
use crate::log;

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

/// Reads the config again. Tokens, certificates, rights, limits and the level of the log are taken over, all or none; what
/// else has changed is said to need a restart.
pub(super) async fn run(args: &Serve, config: &Config, server: &Server) -> Outcome<ServeConfig> {
    let new = Config::load(&args.config)?;
    let serve = section(&new, args.listen)?;
    server.reload(&serve).await?;
    log::set_level(serve.log.as_str());
    say(format!(
        "{}: read again; tokens, certificates, rights and limits are taken over",
        config.origin().display()
    ));
    let rest = needs_restart(config, &new);
    if !rest.is_empty() {
        say(format!("changed, and taken over by a restart only: {}", rest.join(", ")));
    }
    Ok(serve)
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
