//! Several processes over one store, each with a cache: what one writes, the caches of the others drop.
//!
//! Prints the value of a key whenever somebody changes it, here or elsewhere, read through the cache.
//! The config names a cache over a backend with a change feed, such as PostgreSQL or Redis with
//! `change_feed: true`. In one terminal
//!
//! ```sh
//! cargo run --release --features full --example shared_store -- tierstack.yaml greeting
//! ```
//!
//! and in another `tierstack put greeting hello`.

use std::process::ExitCode;

use bytes::Bytes;
use futures_util::StreamExt;
use tierstack::config::{Config, Registry};
use tierstack::{Change, OpenOptions, Result, Stack};

#[tokio::main]
async fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (Some(config), Some(key)) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: shared_store CONFIG KEY");
        return ExitCode::from(2);
    };
    match watch(&config, key.into()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn watch(config: &str, key: Bytes) -> Result<()> {
    let config = Config::load(config)?;
    let options = OpenOptions::default();
    let store = Stack::open(&config, None, &Registry::standard(), &options).await?;
    // Subscribed before the first read, so that nothing changes unseen in between.
    let mut changes = store.changes().await?;
    show(&store, &key).await;
    while let Some(change) = changes.next().await {
        match change {
            Change::Keys(keys) if keys.contains(&key) => show(&store, &key).await,
            Change::Keys(_) => {}
            Change::Prefix(prefix) if !key.starts_with(&prefix) => {}
            Change::Lost => println!("(no connection: every read asks the store)"),
            Change::Prefix(_) | Change::All => show(&store, &key).await,
        }
    }
    store.close().await
}

async fn show(store: &Stack, key: &[u8]) {
    match store.get(key).await {
        Ok(Some(value)) => println!("{}", value.bytes.escape_ascii()),
        Ok(None) => println!("(no such key)"),
        // A server that comes back may not answer at once; a `retry` layer would wait for it.
        Err(error) => println!("({error})"),
    }
}
