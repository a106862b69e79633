//! What a listener lets its callers do. Replaced as a whole when the config, a token or a certificate has changed.

use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;

use super::tls::{self, Certificate};
use super::tokens::Token;
use crate::clock::Clock;
use crate::config::{Grants, LimitsConfig, ListenerConfig};
use crate::error::{Error, Result};
use crate::status::ListenerFacts;
use crate::telemetry::{Gauge, Labels, names};
use crate::types::units::Secret;

/// How often the files of tokens and certificates are looked at.
const EVERY: Duration = Duration::from_secs(30);

pub(in crate::serve) struct Policy {
    pub(in crate::serve) stores: Grants,
    pub(in crate::serve) tokens: Vec<Token>,
    pub(in crate::serve) tls: Option<Certificate>,
    pub(in crate::serve) limits: LimitsConfig,
    /// What the config says, to be read again.
    config: ListenerConfig,
    /// The files as they were when they were read.
    files: Files,
}

impl Policy {
    /// Reads the tokens and the certificate. Relative paths begin at that folder.
    pub(in crate::serve) async fn load(config: &ListenerConfig, folder: &Path) -> Result<Self> {
        // Before they are read: what changes meanwhile is read once more.
        let files = Files::of(config, folder);
        let mut tokens: Vec<Token> = Vec::with_capacity(config.tokens.len());
        for token in &config.tokens {
            let token = Token::load(token, folder).await?;
            if let Some(other) = tokens.iter().find(|other| other.is_same(&token)) {
                return Err(Error::config(format!(
                    "the tokens '{}' and '{}' are the same; give each one of its own",
                    other.name, token.name
                )));
            }
            tokens.push(token);
        }
        let tls = config.tls.as_ref().map(|files| tls::load(files, folder)).transpose()?;
        Ok(Self {
            stores: config.stores.clone(),
            tokens,
            tls,
            limits: config.limits,
            config: config.clone(),
            files,
        })
    }

    /// What watchers are told of the listener, as far as it has these stores.
    pub(in crate::serve) fn told(&self, address: &str, stores: &[&str]) -> ListenerFacts {
        let right =
            |name: &&str| Some(((*name).to_owned(), self.stores.right(name)?.as_str().to_owned()));
        ListenerFacts {
            address: address.to_owned(),
            tls: self.tls.is_some(),
            tokens: self.tokens.len(),
            stores: stores.iter().filter_map(right).collect(),
        }
    }

    /// The token that a caller has presented, by its place.
    pub(in crate::serve) fn find(&self, presented: &[u8]) -> Option<usize> {
        Token::find(&self.tokens, presented)
    }
}

/// Files, and what tells each from the one that was there before.
#[derive(Clone, Default, PartialEq)]
struct Files(Vec<(PathBuf, Option<(SystemTime, u64)>)>);

impl Files {
    fn of(config: &ListenerConfig, folder: &Path) -> Self {
        let tls = config.tls.iter().flat_map(|files| [&files.cert, &files.key]);
        let tokens = config.tokens.iter().filter_map(|token| match &token.secret {
            Secret::File(path) => Some(path),
            Secret::Env(_) => None,
        });
        Self(tls.chain(tokens).map(|path| folder.join(path)).map(state).collect())
    }

    fn as_they_are_now(&self) -> Self {
        Self(self.0.iter().map(|(path, _)| state(path.clone())).collect())
    }
}

fn state(path: PathBuf) -> (PathBuf, Option<(SystemTime, u64)>) {
    let state = |meta: Metadata| Some((meta.modified().ok()?, meta.len()));
    let found = std::fs::metadata(&path).ok().and_then(state);
    (path, found)
}

/// The policy of a listener as it is now.
pub(super) struct Current {
    policy: ArcSwap<Policy>,
    labels: Labels,
    /// Only while there is a certificate.
    expiry: Mutex<Option<Gauge>>,
}

impl Current {
    pub(super) fn new(policy: Policy, labels: Labels) -> Self {
        let policy = ArcSwap::from_pointee(policy);
        let current = Self { policy, labels, expiry: Mutex::new(None) };
        current.tell();
        current
    }

    pub(super) fn load(&self) -> Guard<Arc<Policy>> {
        self.policy.load()
    }

    pub(super) fn load_full(&self) -> Arc<Policy> {
        self.policy.load_full()
    }

    /// Replaces it.
    pub(super) fn store(&self, policy: Policy) {
        self.policy.store(Arc::new(policy));
        self.tell();
    }

    /// Shows when the certificate expires.
    fn tell(&self) {
        let mut shown = self.expiry.lock();
        let expires_at = self.load().tls.as_ref().and_then(|tls| tls.expires_at);
        *shown = expires_at.map(|at| {
            let gauge = self.labels.gauge(names::SERVE_CERTIFICATE, &[]);
            gauge.set((at.as_millis() / 1000).cast_signed());
            gauge
        });
    }

    /// Reads the files again when they have changed, for ever. What cannot be used is warned of once, and the policy stays as
    /// it was.
    pub(super) async fn follow_files(&self, folder: &Path, clock: &dyn Clock) {
        let mut refused = Files::default();
        loop {
            clock.sleep(EVERY).await;
            let present = self.load_full();
            let files = present.files.as_they_are_now();
            if files == present.files || files == refused {
                continue;
            }
            match Policy::load(&present.config, folder).await {
                Ok(new) => {
                    // Unless it was replaced meanwhile, by one that is later.
                    self.policy.compare_and_swap(&present, Arc::new(new));
                    self.tell();
                    tracing::info!(
                        "tokens and certificates were read again, as a file has changed"
                    );
                }
                Err(error) => {
                    tracing::warn!(%error, "changed tokens or certificates cannot be used; the former ones stay");
                    refused = files;
                }
            }
        }
    }
}
