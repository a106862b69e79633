//! The PostgreSQL backend against real servers.
//!
//! `TIERSTACK_TEST_POSTGRES` names one that is shared, in which each test has a table of its own; what is
//! killed, stopped or filled up is a server of the test's own. Without them the tests print why they are
//! skipped; with `CI` set they fail.

#![cfg(feature = "postgres")]

mod announcing;
mod conforming;
mod crash;
mod faults;
mod hearing;
mod opening;
mod others;
mod pooling;
mod reading;
mod rows;
mod sharing;
mod tables;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tierstack::backends::{Postgres, PostgresConfig};
use tierstack::units::Span;
use tokio_postgres::{Client, NoTls};

use crate::support;

/// Settings for a table that is not there yet, on the shared server. With long deadlines: a disk that
/// many tests share may take seconds for a checkpoint.
fn config() -> Option<PostgresConfig> {
    let url = support::var("TIERSTACK_TEST_POSTGRES")?;
    let patient = Span(Duration::from_secs(100));
    let config = PostgresConfig::new(url);
    Some(PostgresConfig {
        table: fresh_table(),
        timeout: patient,
        connect_timeout: patient,
        ..config
    })
}

fn fresh_table() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("test_{}_{number}", std::process::id())
}

async fn open(config: &PostgresConfig) -> Postgres {
    Postgres::open(config.clone()).await.unwrap()
}

/// Drops a table at the end of a test.
struct Dropped {
    url: String,
    table: String,
}

impl Dropped {
    fn after(config: &PostgresConfig) -> Self {
        let url = support::var("TIERSTACK_TEST_POSTGRES").unwrap();
        Self { url, table: config.table.clone() }
    }
}

impl Drop for Dropped {
    fn drop(&mut self) {
        let (url, table) = (self.url.clone(), self.table.clone());
        // In a runtime of its own, as this one cannot be blocked.
        let dropping = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let client = connect(&url).await;
                client.batch_execute(&format!("DROP TABLE IF EXISTS \"{table}\"")).await.unwrap();
            });
        });
        let _ = dropping.join();
    }
}

/// A client that is no part of tierstack.
async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}
