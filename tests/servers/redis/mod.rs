//! The Redis backend against real servers of the test's own.
#![cfg(all(feature = "redis", feature = "testing"))]

mod changes;
mod cluster;
mod conformance;
mod existing;
mod faults;
mod meddler;
mod reading;
mod refused;

use std::sync::Arc;
use std::time::Duration;

use tierstack::backends::{Redis, RedisConfig};
use tierstack::units::{Span, Url};
use tierstack::{ErrorKind, Result, Store};

use crate::support;

type Server = support::Redis;

async fn server() -> Option<Server> {
    Server::start(&[]).await
}

fn on(url: impl Into<Url>) -> RedisConfig {
    RedisConfig::new(url)
}

/// Also where the machine is too busy for the deadlines of [`hasty`].
async fn open(config: RedisConfig) -> Arc<Redis> {
    Arc::new(soon(|| Redis::open(config.clone())).await)
}

/// Deadlines that a test can wait for.
fn hasty(config: RedisConfig) -> RedisConfig {
    RedisConfig {
        connect_timeout: Span(Duration::from_millis(300)),
        timeout: Span(Duration::from_millis(1000)),
        ..config
    }
}

#[track_caller]
fn kind<T: std::fmt::Debug>(result: Result<T>) -> ErrorKind {
    let error = result.unwrap_err();
    assert!(!format!("{error:?}").contains("s3cr3t"), "{error:?}");
    assert_eq!(error.layer(), Some("redis"), "{error:?}");
    error.kind()
}

/// Tries until it works, for as long as a server may take to start: on a busy machine several elections may fail.
async fn soon<T, E: std::fmt::Debug, F: Future<Output = Result<T, E>>>(
    attempt: impl Fn() -> F,
) -> T {
    let begun = tokio::time::Instant::now();
    loop {
        match attempt().await {
            Ok(done) => return done,
            Err(error) if begun.elapsed() > Duration::from_secs(90) => {
                panic!("it does not come back: {error:?}")
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// Nothing may hang: what is at stake here are deadlines of a second.
async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), work).await.expect("it hangs")
}

async fn close(store: &Redis) {
    store.close().await.unwrap();
}
