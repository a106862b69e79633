//! Stacks that are opened while the store below their `write_back` is away.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::watch;

use super::*;
use crate::backends::Memory;
use crate::clock::ManualClock;
use crate::config::Config;
use crate::error::{Error, ErrorKind, Outcome, Result};
use crate::ext::{ReadExt as _, StoreExt as _};
use crate::forward;
use crate::layer::{BackendConfig, Context};
use crate::store::Read;
use crate::types::{Durability, Profile, Scan};

/// The servers of the tests, by name.
static SERVERS: Mutex<BTreeMap<String, Server>> = Mutex::new(BTreeMap::new());

/// A server that can be away.
#[derive(Clone)]
struct Server {
    data: Arc<Mutex<Arc<Memory>>>,
    /// What opening it fails with.
    fails: Arc<Mutex<Option<ErrorKind>>>,
    /// Whether it answers.
    answers: Arc<watch::Sender<bool>>,
    /// Whether it guarantees less than its settings say.
    is_less: Arc<Mutex<bool>>,
}

impl Server {
    fn new(name: &str) -> Self {
        let server = Self {
            data: Arc::new(Mutex::new(Arc::new(Memory::new()))),
            fails: Arc::default(),
            answers: Arc::new(watch::Sender::new(true)),
            is_less: Arc::default(),
        };
        SERVERS.lock().unwrap().insert(name.to_owned(), server.clone());
        server
    }

    fn data(&self) -> Arc<Memory> {
        Arc::clone(&self.data.lock().unwrap())
    }

    fn fails(&self, kind: impl Into<Option<ErrorKind>>) {
        *self.fails.lock().unwrap() = kind.into();
    }
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RemoteConfig {
    server: String,
}

fn profile() -> Profile {
    let guarantees = Memory::new().profile().guarantees;
    Profile::backend("remote", guarantees).changed(|guarantees| {
        guarantees.durability = Durability::PowerCut;
        guarantees.durability_on_request = Durability::PowerCut;
        guarantees.durability_after_flush = Durability::PowerCut;
    })
}

#[async_trait]
impl BackendConfig for RemoteConfig {
    const NAME: &'static str = "remote";

    fn profile(&self) -> Result<Profile> {
        Ok(profile())
    }

    async fn open(&self, _: &Context) -> Result<Arc<dyn Store>> {
        let server = SERVERS.lock().unwrap()[&self.server].clone();
        server.answers.subscribe().wait_for(|answers| *answers).await.unwrap();
        if let Some(kind) = *server.fails.lock().unwrap() {
            return Err(Error::new(kind, "the server is not there"));
        }
        let is_less = *server.is_less.lock().unwrap();
        let profile = profile().changed(|guarantees| guarantees.atomic_pages &= !is_less);
        Ok(Arc::new(Remote { data: server.data(), profile, server }))
    }
}

/// A connection: what is closed is the connection, and not the data.
struct Remote {
    data: Arc<Memory>,
    profile: Profile,
    server: Server,
}

impl Remote {
    fn check(&self) -> Result<()> {
        match *self.server.fails.lock().unwrap() {
            Some(kind) => Err(Error::new(kind, "the connection is lost")),
            None => Ok(()),
        }
    }
}

#[deny(clippy::missing_trait_methods)]
impl Read for Remote {
    fn get<'a>(&'a self, key: &'a [u8]) -> crate::Reply<'a, Option<crate::Value>> {
        match self.check() {
            Ok(()) => self.data.get(key),
            Err(error) => crate::Reply::Now(Err(error)),
        }
    }

    forward!(self => self.data; get_many, scan);
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Store for Remote {
    async fn close(&self) -> Result<()> {
        Ok(())
    }

    fn profile(&self) -> Profile {
        self.profile.clone()
    }

    forward!(self => self.data; write, write_group, ingest, changes, invalidate, inspect, snapshot, flush, compact, usage, count, identity);
}

fn registry() -> Registry {
    let mut registry = Registry::standard();
    registry.backend::<RemoteConfig>().unwrap();
    registry
}

struct Setup {
    server: Server,
    config: Config,
    _folder: tempfile::TempDir,
}

/// A `write_back` with these settings more over a server, with these layers around and below it.
fn setup(name: &str, settings: &str, outer: &str, inner: &str) -> Setup {
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "stores: {{ main: {{ layers: [ {outer} write_back: {{ path: journal, flush_after: 1ms, {settings} }}, {inner} ], backend: {{ remote: {{ server: {name} }} }} }} }}"
    );
    let config = Config::parse(&text, Format::Yaml, folder.path().join("test.yaml")).unwrap();
    Setup { server: Server::new(name), config, _folder: folder }
}

impl Setup {
    async fn open(&self) -> Result<Stack> {
        self.open_with(&OpenOptions::default()).await
    }

    async fn open_with(&self, options: &OpenOptions) -> Result<Stack> {
        Stack::open(&self.config, None, &registry(), options).await
    }

    /// Opened once, with an entry in the store.
    async fn used(self) -> Self {
        let stack = self.open().await.unwrap();
        stack.put("old", "1").await.unwrap();
        stack.close().await.unwrap();
        assert_eq!(self.server.data().get(b"old").await.unwrap(), Some("1".into()));
        self
    }
}

/// Waits until something holds, which it does soon, or a test hangs.
async fn until(holds: impl AsyncFn() -> bool) {
    while !holds().await {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn writes_are_taken_while_the_store_below_is_away_and_reach_it_when_it_comes() {
    for (at, kind) in [ErrorKind::Unavailable, ErrorKind::Timeout].into_iter().enumerate() {
        // With layers on both sides, and a cache that asks for the identity of the data.
        let cache = "cache: { ttl: 1h, disk: { path: cache, capacity: 16MiB, warm: true } },";
        let inner = "compress: {}, { prefix: { prefix: p/ } }, timeout";
        let outer = if cfg!(feature = "cache") { cache } else { "" };
        let setup = setup(&format!("comes-{at}"), "", outer, inner);
        let stack = setup.open().await.unwrap();
        stack.put("old", "1").await.unwrap();
        let identity = stack.identity();
        stack.close().await.unwrap();

        setup.server.fails(kind);
        let stack = setup.open().await.unwrap();
        assert!(identity.is_some() && stack.identity() == identity);
        stack.put("new", "2").await.unwrap();
        assert_eq!(stack.get(b"new").await.unwrap(), Some("2".into()));
        for error in [
            stack.get(b"never").await.err(),
            stack.get_many(&["never".into()]).await.err(),
            stack.collect(Scan::all()).await.err(),
            stack.snapshot().await.err(),
            stack.usage().await.err(),
            stack.flush().await.err(),
        ] {
            let error = error.unwrap();
            assert_eq!((error.kind(), error.outcome()), (kind, Outcome::Nothing));
            let text = error.to_string();
            assert!(text.contains("stores.main.backend.remote: the server is not there"), "{text}");
        }
        for rewriter in stack.rewriters() {
            let error = rewriter.rewrite(Scan::all(), &mut |_| ()).await.unwrap_err();
            assert_eq!((rewriter.name(), error.kind()), ("compress", kind));
        }
        assert_eq!(stack.rewriters().len(), 1);

        setup.server.fails(None);
        until(async || stack.get(b"never").await.is_ok()).await;
        stack.flush().await.unwrap();
        assert_eq!(stack.get(b"old").await.unwrap(), Some("1".into()));
        assert_eq!(stack.identity(), identity);
        let below = setup.server.data();
        let keys = below.collect(Scan::prefix("p/")).await.unwrap();
        assert_eq!(keys.len(), 2, "both writes are below");
        let error = stack.rewriters()[0].rewrite(Scan::all(), &mut |_| ()).await.unwrap_err();
        assert!(error.to_string().contains("open the stack again"), "{error}");
        stack.close().await.unwrap();
    }
}

#[tokio::test]
async fn only_a_store_that_cannot_be_reached_is_opened_later() {
    let setup = setup("refuses", "", "", "").used().await;
    for kind in [
        ErrorKind::Config,
        ErrorKind::Access,
        ErrorKind::Corruption,
        ErrorKind::Conflict,
        ErrorKind::Unsupported,
        ErrorKind::Capacity,
    ] {
        setup.server.fails(kind);
        assert_eq!(setup.open().await.unwrap_err().kind(), kind);
    }
}

#[tokio::test]
async fn what_must_have_its_store_does_not_open_without_it() {
    let away = |setup: &Setup| setup.server.fails(ErrorKind::Unavailable);
    let late = |late| OpenOptions { late, ..OpenOptions::default() };
    let command = setup("command", "", "", "").used().await;
    away(&command);
    for options in [late(false), OpenOptions::reading()] {
        let error = command.open_with(&options).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }
    command.open_with(&late(true)).await.unwrap().close().await.unwrap();
    let waits = setup("waits", "open: wait", "", "").used().await;
    let memory = setup("memory", "ack: memory", "", "");
    let first = setup("first", "", "", "");
    for setup in [waits, memory, first] {
        away(&setup);
        let error = setup.open().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }
    let first = setup("first", "", "", "");
    away(&first);
    let text = first.open().await.unwrap_err().to_string();
    assert!(text.contains("write_back needs the store below at its first opening"), "{text}");
}

/// Every write, flush and close gives that error, and nothing reaches the store that came.
async fn refuses(setup: &Setup, told: &str) {
    let stack = setup.open().await.unwrap();
    stack.put("new", "2").await.unwrap();
    setup.server.fails(None);
    let before = setup.server.data().collect(Scan::all()).await.unwrap();
    until(async || stack.put("later", "3").await.is_err()).await;
    for error in [
        stack.put("more", "4").await.err(),
        stack.flush().await.err(),
        stack.get(b"never").await.err(),
        stack.close().await.err(),
    ] {
        let text = error.unwrap().to_string();
        assert!(text.contains(told), "{text}");
    }
    assert_eq!(setup.server.data().collect(Scan::all()).await.unwrap(), before);
}

#[tokio::test]
async fn another_store_that_comes_is_refused() {
    let setup = setup("other", "", "", "").used().await;
    setup.server.fails(ErrorKind::Unavailable);
    *setup.server.data.lock().unwrap() = Arc::new(Memory::new());
    refuses(&setup, "holds writes for 'memory:").await;
    // As at an opening over it.
    let error = setup.open().await.unwrap_err();
    assert!(error.to_string().contains("holds writes for 'memory:"), "{error}");
    assert_eq!(error.kind(), ErrorKind::Conflict);
}

#[cfg(feature = "backup")]
#[tokio::test]
async fn a_store_that_comes_with_part_of_a_restore_is_refused() {
    let setup = setup("half", "", "", "").used().await;
    let mark = crate::backup::UnfinishedRestore {
        repository: "r".to_owned(),
        base: "b".to_owned(),
        prefix: Vec::new(),
        started: crate::clock::Timestamp::from_millis(0),
    };
    let mark = serde_json::to_vec(&mark).unwrap();
    setup.server.data().put(&b"\0tierstack/restore"[..], mark).await.unwrap();
    let opened = setup.open().await.unwrap_err();
    setup.server.fails(ErrorKind::Unavailable);
    refuses(&setup, opened.message()).await;
}

#[tokio::test]
async fn a_store_that_comes_and_guarantees_less_is_refused() {
    let setup = setup("less", "", "", "").used().await;
    setup.server.fails(ErrorKind::Timeout);
    *setup.server.is_less.lock().unwrap() = true;
    refuses(&setup, "(`atomic_pages`); open the stack again").await;
}

#[tokio::test]
async fn a_role_that_is_corrected_and_a_standby_that_is_promoted_come_later() {
    let setup = setup("access", "", "", "").used().await;
    setup.server.fails(ErrorKind::Unavailable);
    let stack = setup.open().await.unwrap();
    setup.server.fails(ErrorKind::Access);
    until(async || stack.get(b"old").await.unwrap_err().kind() == ErrorKind::Access).await;
    stack.put("new", "2").await.unwrap();
    setup.server.fails(None);
    until(async || stack.get(b"old").await.is_ok()).await;
    stack.close().await.unwrap();
    assert_eq!(setup.server.data().get(b"new").await.unwrap(), Some("2".into()));
}

#[tokio::test]
async fn what_is_closed_before_the_store_came_is_written_when_it_is_opened_again() {
    let setup = setup("closed", "max_wait: 10ms", "", "").used().await;
    setup.server.fails(ErrorKind::Unavailable);
    let stack = setup.open().await.unwrap();
    stack.close().await.unwrap();
    assert_eq!(stack.get(b"old").await.unwrap_err().kind(), ErrorKind::Closed);

    let stack = setup.open().await.unwrap();
    stack.put("new", "2").await.unwrap();
    let left = stack.close().await.unwrap_err().to_string();
    assert!(left.contains("1 entry of") && left.contains("are in the journal"), "{left}");
    assert!(left.contains("the server is not there"), "{left}");

    // Without `close`, nothing goes on to open the store.
    let stack = setup.open().await.unwrap();
    assert_eq!(stack.get(b"new").await.unwrap(), Some("2".into()));
    setup.server.answers.send_replace(false);
    until(async || setup.server.answers.receiver_count() > 0).await;
    drop(stack);
    until(async || setup.server.answers.receiver_count() == 0).await;

    setup.server.answers.send_replace(true);
    setup.server.fails(None);
    // What is dropped gives its journal up a little later.
    let stack = loop {
        match setup.open().await {
            Err(error) if error.to_string().contains("is open already") => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            opened => break opened.unwrap(),
        }
    };
    stack.flush().await.unwrap();
    assert_eq!(setup.server.data().get(b"new").await.unwrap(), Some("2".into()));
    stack.close().await.unwrap();
}

#[tokio::test]
async fn a_store_that_does_not_answer_holds_an_opening_up_for_seconds_only() {
    let setup = setup("hangs", "", "", "").used().await;
    let clock = ManualClock::new();
    setup.server.answers.send_replace(false);
    let options = OpenOptions { clock: Arc::new(clock.clone()), ..OpenOptions::default() };
    let registry = registry();
    let mut opening = Box::pin(Stack::open(&setup.config, None, &registry, &options));
    let stack = loop {
        tokio::select! {
            biased;
            stack = &mut opening => break stack.unwrap(),
            () = until(async || setup.server.answers.receiver_count() > 0) => clock.advance(Duration::from_secs(1)),
        }
    };
    let error = stack.get(b"old").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("stores.main.backend.remote: not open after 5s"), "{error}");
    // The attempt goes on.
    setup.server.answers.send_replace(true);
    until(async || stack.get(b"old").await.is_ok()).await;
    stack.close().await.unwrap();
}

/// What opens in between would write over what is restored.
#[tokio::test]
async fn a_restore_holds_the_journal_until_it_is_done() {
    let setup = setup("held", "", "", "").used().await;
    let checked = || Stack::check(&setup.config, None, &registry()).unwrap();
    for over_journal in [false, true] {
        let options = OpenOptions { over_journal, ..OpenOptions::default() };
        let restored = checked().open_stored(&options).await.unwrap();
        restored.put("restored", "1").await.unwrap();
        let between = setup.open().await.unwrap_err();
        assert!(between.to_string().contains("is open already"), "{between}");
        restored.close().await.unwrap();
        let stack = setup.open().await.unwrap();
        assert_eq!(stack.get(b"restored").await.unwrap(), Some("1".into()));
        let during = checked().open_stored(&options).await.unwrap_err();
        assert_eq!(during.kind(), ErrorKind::Conflict);
        stack.close().await.unwrap();
    }
    // A restore that does not open lets go of it.
    setup.server.fails(ErrorKind::Access);
    assert!(checked().open_stored(&OpenOptions::default()).await.is_err());
    setup.server.fails(None);
    setup.open().await.unwrap().close().await.unwrap();
}
