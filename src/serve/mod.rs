//! Stores over HTTP: listeners, tokens, TLS, limits and graceful shutdown.
//!
//! `tierstack serve` serves the stores of a config. A program that has stores of its own does the same with a
//! [`Server`]:
//!
//! ```
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! use std::sync::Arc;
//! use tierstack::Store;
//! use tierstack::backends::Memory;
//! use tierstack::config::ServeConfig;
//! use tierstack::serve::{Server, Stores};
//!
//! let config = ServeConfig::at("127.0.0.1:0".parse().unwrap());
//! let server = Server::listen(&config, "").await?;
//! let orders: Arc<dyn Store> = Arc::new(Memory::new());
//! server.open(Stores::new([("orders", Arc::clone(&orders))]));
//! // ... until the process is to end:
//! let left = server.drain(std::future::pending()).await;
//! assert_eq!(left.requests, 0);
//! orders.close().await?;
//! # Ok::<(), tierstack::Error>(()) }).unwrap();
//! ```
//!
//! The page `docs/serve.md` says what is served, and what a caller may rely on.

#![allow(dead_code, reason = "the routes will use it")]

mod accept;
mod access;
mod bind;
mod budget;
mod connection_timeout;
mod counters;
mod deadline;
mod expiry;
mod gate;
mod health;
mod http;
mod limited_body;
mod live;
mod live_watchers;
mod policy;
mod problem;
mod route;
mod shared;
#[cfg(test)]
mod tests;
mod tls;
mod tokens;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use axum::Router;
use tokio::task::JoinHandle;

use self::bind::Socket;
use self::gate::Gate;
use self::policy::Policy;
pub use self::shared::Stores;
use self::shared::{Phase, Shared};
use crate::clock::{Clock, SystemClock};
use crate::config::{Listen, ServeConfig};
use crate::error::{Error, Result};

/// Listeners that serve stores, until it is dropped. See the [module docs](self).
#[must_use = "nothing is served once this is dropped"]
pub struct Server {
    shared: Arc<Shared>,
    listeners: Vec<Listener>,
    folder: PathBuf,
}

struct Listener {
    name: String,
    place: Listen,
    address: Option<SocketAddr>,
    gate: Arc<Gate>,
    task: JoinHandle<()>,
}

/// What was still under way when a server ended. See the [module docs](self).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Left {
    /// Requests without a whole answer. A write among them may or may not have taken effect.
    pub requests: usize,
    /// Connections.
    pub connections: usize,
}

impl Server {
    /// Listens from now on, in tasks of the present tokio runtime. Until stores are [opened](Self::open), every request
    /// for one is answered with 503. Relative paths of the config begin at that folder.
    ///
    /// # Errors
    /// `Config` as [`ServeConfig::check`], and if a token or a certificate cannot be read; `Conflict` if an address is taken;
    /// `Access`, `Unavailable` as the system answers; `Unsupported` for a Unix domain socket where there are none.
    pub async fn listen(config: &ServeConfig, folder: impl AsRef<Path>) -> Result<Self> {
        let routes = http::routes().merge(live::routes());
        Self::listen_with(config, folder.as_ref(), SystemClock::shared(), &routes).await
    }

    async fn listen_with(
        config: &ServeConfig,
        folder: &Path,
        clock: Arc<dyn Clock>,
        routes: &Router<Arc<Shared>>,
    ) -> Result<Self> {
        config.check()?;
        let mut made = Vec::with_capacity(config.listeners.len());
        for (at, listener) in config.listeners.iter().enumerate() {
            let refuse = |error: Error| error.with_context(format_args!("serve.listeners[{at}]"));
            let policy = Policy::load(listener, folder).await.map_err(refuse)?;
            let place = listener.place.within(folder);
            let socket = Socket::bind(&place).await.map_err(refuse)?;
            made.push((socket, place, policy));
        }
        bind::refuse_unused_sockets()?;
        let shared = Shared::new(clock);
        let listeners = made.into_iter().map(|(socket, place, policy)| {
            let address = socket.address();
            // The address that was taken, or the path of the socket.
            let name = address.map_or_else(|| place.to_string(), |address| address.to_string());
            let port = address.map(|address| address.port());
            let gate = Arc::new(Gate::new(&shared, &name, policy, port, routes.clone()));
            let task = tokio::spawn(accept::run(socket, Arc::clone(&gate), folder.to_owned()));
            Listener { name, place, address, gate, task }
        });
        let listeners: Vec<Listener> = listeners.collect();
        let gates: Vec<_> =
            listeners.iter().map(|one| (one.name.clone(), Arc::downgrade(&one.gate))).collect();
        shared.watched.listening(move |stores| {
            let told = |(name, gate): &(String, Weak<Gate>)| {
                Some(gate.upgrade()?.policy.load().told(name, stores))
            };
            gates.iter().filter_map(told).collect()
        });
        Ok(Self { shared, listeners, folder: folder.to_owned() })
    }

    /// Serves these stores from now on. Only the first call counts. The caller closes them, after [`drain`](Self::drain).
    pub fn open(&self, stores: Stores) {
        self.shared.open(stores);
    }

    /// How many series Prometheus keeps of a server with this config and that many stores, in addition to those that the stores
    /// [have themselves](crate::Checked::series).
    ///
    /// ```
    /// use tierstack::config::ServeConfig;
    /// use tierstack::serve::Server;
    ///
    /// let config = ServeConfig::at("127.0.0.1:0".parse().unwrap());
    /// // Of each store, whether it is open.
    /// assert_eq!(Server::series(&config, 3), Server::series(&config, 2) + 1);
    /// ```
    #[must_use]
    pub fn series(config: &ServeConfig, stores: usize) -> usize {
        // Whether the server is ready is one more.
        counters::series_of(&config.listeners) + 1 + stores
    }

    /// Where callers reach it, in the order of the config: addresses with the port that was taken, and `None` for Unix domain sockets.
    pub fn addresses(&self) -> impl Iterator<Item = Option<SocketAddr>> {
        self.listeners.iter().map(|listener| listener.address)
    }

    /// Takes over what has changed in the config: stores and rights of listeners, tokens, certificates, limits. All of it, or
    /// nothing. Tokens and certificates are read again in any case. Connections stay; a request that is under way ends as it
    /// began.
    ///
    /// # Errors
    /// Like [`listen`](Self::listen), and `Config` if an address has changed, which takes another server.
    pub async fn reload(&self, config: &ServeConfig) -> Result<()> {
        config.check()?;
        let places = config.listeners.iter().map(|listener| listener.place.within(&self.folder));
        if !places.eq(self.listeners.iter().map(|listener| listener.place.clone())) {
            return Err(Error::config(
                "serve.listeners: an address has changed, or a listener was added or left out, and that takes a restart",
            ));
        }
        let mut policies = Vec::with_capacity(config.listeners.len());
        for (at, listener) in config.listeners.iter().enumerate() {
            let policy = Policy::load(listener, &self.folder).await;
            policies.push(
                policy
                    .map_err(|error| error.with_context(format_args!("serve.listeners[{at}]")))?,
            );
        }
        for (listener, policy) in self.listeners.iter().zip(policies) {
            listener.gate.policy.store(policy);
        }
        Ok(())
    }

    /// Accepts nothing more, is not ready from now on, and lets what is under way end: until all of it has, or `cut` is
    /// done, which may be a deadline. Tells what was left then.
    pub async fn drain(mut self, cut: impl Future<Output = ()>) -> Left {
        self.shared.advance(Phase::Draining);
        let ended = async {
            for listener in &mut self.listeners {
                // It fails if it has panicked; then nothing of it is left either.
                let _ = (&mut listener.task).await;
            }
        };
        let all = tokio::select! {
            biased;
            () = ended => true,
            () = cut => false,
        };
        if all {
            return Left::default();
        }
        let left =
            Left { requests: self.shared.requests(), connections: self.shared.connections() };
        self.shared.advance(Phase::Ended);
        for listener in &mut self.listeners {
            if !listener.task.is_finished() {
                let _ = (&mut listener.task).await;
            }
        }
        left
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for listener in &self.listeners {
            listener.task.abort();
        }
    }
}

/// Addresses only.
impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places = self.listeners.iter().map(|listener| listener.place.to_string());
        f.debug_tuple("Server").field(&places.collect::<Vec<_>>()).finish()
    }
}
