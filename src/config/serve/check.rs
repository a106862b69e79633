//! What is wrong with a section `serve`, as far as the file tells.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use super::grants::{Grants, Right};
use super::token::TokenConfig;
use super::{Listen, ListenerConfig, ServeConfig};
use crate::config::explain;

const MOST_CONNECTIONS: u32 = 100_000;
const IDLE: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);
const DRAIN: Duration = Duration::from_secs(3600);

impl ServeConfig {
    /// Checks what can be decided without opening anything; reading a file does so already.
    ///
    /// # Errors
    /// `Config` that says what is wrong where, and what is allowed: among others a listener that other machines reach, without a token or
    /// without TLS.
    pub fn check(&self) -> crate::error::Result<()> {
        check(self, None).map_err(crate::error::Error::config)
    }

    /// Like [`check`](Self::check), with the names of the stores that there are.
    pub(in crate::config) fn check_with(&self, stores: &[&str]) -> Result<(), String> {
        check(self, Some(stores))
    }
}

/// The path within the section, and what is wrong there. `stores`: those that there are, if they are known.
fn check(config: &ServeConfig, stores: Option<&[&str]>) -> Result<(), String> {
    if config.listeners.is_empty() {
        return Err(
            "serve.listeners: the list is empty; write at least one listener, such as `- { listen: 127.0.0.1:9187, stores: write }`"
                .to_owned(),
        );
    }
    if config.drain.0 > DRAIN {
        return Err("serve.drain: at most 1h".to_owned());
    }
    let mut places = BTreeSet::new();
    for (at, listener) in config.listeners.iter().enumerate() {
        let at = format!("serve.listeners[{at}]");
        if !has_free_port(&listener.place) && !places.insert(listener.place.to_string()) {
            return Err(format!("{at}: another listener has {} already", listener.place));
        }
        check_limits(listener).map_err(|what| format!("{at}.limits.{what}"))?;
        check_grants(&listener.stores, stores).map_err(|what| format!("{at}.stores{what}"))?;
        check_tokens(listener, stores).map_err(|what| format!("{at}.tokens{what}"))?;
        check_reach(listener).map_err(|what| format!("{at}: {what}"))?;
    }
    Ok(())
}

fn has_free_port(place: &Listen) -> bool {
    matches!(place, Listen::Tcp(address) if address.port() == 0)
}

fn check_limits(listener: &ListenerConfig) -> Result<(), String> {
    let limits = &listener.limits;
    if !(1..=MOST_CONNECTIONS).contains(&limits.connections) {
        return Err(format!(
            "connections: {} is outside 1 to {MOST_CONNECTIONS}",
            limits.connections
        ));
    }
    if !IDLE.contains(&limits.idle.0) {
        return Err(format!("idle: {} is outside 1s to 1h", limits.idle));
    }
    Ok(())
}

fn check_grants(grants: &Grants, stores: Option<&[&str]>) -> Result<(), String> {
    let Some(stores) = stores else { return Ok(()) };
    match grants.named().find(|(name, _)| !stores.contains(name)) {
        Some((name, _)) => {
            Err(format!(": {}", explain::unknown("store", name, stores.iter().copied())))
        }
        None => Ok(()),
    }
}

fn check_tokens(listener: &ListenerConfig, stores: Option<&[&str]>) -> Result<(), String> {
    let mut names = BTreeSet::new();
    for (at, token) in listener.tokens.iter().enumerate() {
        let TokenConfig { name, stores: grants, .. } = token;
        if !is_name(name) {
            return Err(format!("[{at}].name: use 1 to 64 letters, digits, '_', '-' and '.'"));
        }
        if !names.insert(name) {
            return Err(format!(
                "[{at}].name: another token of this listener is called '{name}'; the log would not tell them apart"
            ));
        }
        let Some(grants) = grants else { continue };
        check_grants(grants, stores).map_err(|what| format!("[{at}].stores{what}"))?;
        let beyond = |(store, right): (&str, Right)| {
            let most = listener.stores.right(store);
            (Some(right) > most).then(|| match most {
                Some(most) => format!("'{store}' is served here for `{}` at most", most.as_str()),
                None => format!("'{store}' is not served here"),
            })
        };
        let every = match grants {
            Grants::Every(right) if Some(*right) > listener.stores.most() => {
                let most = listener
                    .stores
                    .most()
                    .map_or("nothing".to_owned(), |most| format!("`{}`", most.as_str()));
                Some(format!("no store is served here for more than {most}"))
            }
            _ => None,
        };
        if let Some(what) = every.or_else(|| grants.named().find_map(beyond)) {
            return Err(format!(
                "[{at}].stores: {what}; a token is good for no more than `stores` of its listener"
            ));
        }
    }
    Ok(())
}

fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
}

/// What could be reached from where.
fn check_reach(listener: &ListenerConfig) -> Result<(), String> {
    let address = match &listener.place {
        Listen::Unix { .. } if listener.tls.is_some() => {
            return Err(
                "`tls` is for `listen`; a Unix domain socket does not leave the machine".to_owned()
            );
        }
        Listen::Tcp(address) if !is_of_this_machine(address.ip()) => address,
        Listen::Tcp(_) | Listen::Unix { .. } => return Ok(()),
    };
    if listener.tokens.is_empty() {
        let could = match listener.stores.most() {
            Some(right) => format!("could {} its stores", right_in_words(right)),
            None => "could see its metrics".to_owned(),
        };
        return Err(format!(
            "{address} is reached from other machines, and any client there {could}; add `tokens: [ {{ name: app, env: APP_TOKEN }} ]`, or listen on 127.0.0.1"
        ));
    }
    if listener.tls.is_none() && !listener.plain_text {
        return Err(format!(
            "{address} is reached from other machines, and tokens and values would cross the network in plain text; add `tls: {{ cert: ./cert.pem, key: ./key.pem }}`, or `plain_text: true` where a proxy, a service mesh or the network itself encrypts"
        ));
    }
    Ok(())
}

fn right_in_words(right: Right) -> &'static str {
    match right {
        Right::Read => "read",
        Right::Write | Right::Admin => "write",
    }
}

/// Only from this machine.
fn is_of_this_machine(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}
