//! One connection: address, TLS, and the settings of its session.

use std::future::poll_fn;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use deadpool_postgres::ClientWrapper;
use futures_util::future::BoxFuture;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres::error::SqlState;
use tokio_postgres::{AsyncMessage, Client, Config, Notification, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::config::{Pooler, PostgresConfig, Tls};
use super::error::failed;
use super::pool::within;
use super::session::Way;
use super::url;
use crate::clock::{Clock, SystemClock};
use crate::error::{Error, Operation, Result};
use crate::types::Durability;

/// Where notifications go.
pub(super) type Notifications = mpsc::UnboundedSender<Notification>;

/// Makes connections. All of them are set up in the same way.
#[derive(Clone)]
pub(super) struct Connector {
    config: Config,
    tls: MakeRustlsConnect,
    setup: Arc<str>,
    timeout: Duration,
    /// What the server's clock is ahead of the monotonic one here, at least, in milliseconds: as the
    /// last connection saw it.
    ahead: Arc<AtomicI64>,
}

impl Connector {
    /// Reads secrets and certificates, so it blocks for a moment.
    pub(super) fn new(settings: &PostgresConfig, origin: &str) -> Result<Self> {
        let mut config = url::read(&settings.url, settings.password.as_ref())?;
        let tls = settings.tls.unwrap_or_else(|| default_tls(&config));
        config.ssl_mode(match tls {
            Tls::Disable => SslMode::Disable,
            Tls::Require => SslMode::Require,
        });
        if config.get_hosts().len().max(config.get_hostaddrs().len()) > 1
            && !settings.read_only
            && config.get_target_session_attrs() == TargetSessionAttrs::Any
        {
            config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        if config.get_application_name().is_none() {
            config.application_name("tierstack");
        }
        // The last host must have its turn within the deadline where those before it are dead.
        let hosts = config.get_hosts().len().max(config.get_hostaddrs().len()).max(1);
        config
            .connect_timeout(settings.connect_timeout.0 / u32::try_from(hosts).unwrap_or(u32::MAX));
        // A peer that is gone silently is noticed also where no caller waits for it.
        config.tcp_user_timeout(settings.timeout.0);
        config.keepalives_idle(settings.timeout.0);
        Ok(Self {
            config,
            tls: MakeRustlsConnect::new(tls_config(tls, settings.ca.as_deref())?),
            setup: setup(settings, origin).into(),
            timeout: settings.connect_timeout.0,
            ahead: Arc::default(),
        })
    }

    /// The server's clock in that much time, at the latest, in milliseconds since 1970.
    pub(super) fn server_time_in(&self, span: Duration) -> i64 {
        self.ahead.load(Ordering::Relaxed).saturating_add(millis(SystemClock.monotonic() + span))
    }

    pub(super) fn config(&self) -> Config {
        self.config.clone()
    }

    /// A connection of one's own. It ends when the client is dropped.
    pub(super) async fn client(
        &self,
        operation: Operation,
        notifications: Option<Notifications>,
    ) -> Result<ClientWrapper> {
        let connecting = async {
            let connected = self.connect(notifications).await;
            connected.map_err(|error| failed(operation, error).with_context("connecting"))
        };
        let (client, task) = within(operation, self.timeout, connecting).await?;
        Ok(ClientWrapper::new(client, task))
    }

    async fn connect(
        &self,
        notifications: Option<Notifications>,
    ) -> Result<(Client, JoinHandle<()>), tokio_postgres::Error> {
        let (client, mut task) = self.connect_only(notifications).await?;
        self.compare_clocks(&client, &self.setup).await?;
        // It is there until it is taken, here.
        let task = task.0.take().unwrap_or_else(|| tokio::spawn(async {}));
        Ok((client, task))
    }

    /// Whether this connection is one of the server's, or a pooler gives each transaction another one. Asked
    /// before anything is set, which would stay behind for other programs.
    pub(super) async fn has_session(&self) -> Result<bool> {
        let operation = Operation::Open;
        let fail = |error| failed(operation, error).with_context("connecting");
        let asking = async {
            let (one, _one) = self.connect_only(None).await.map_err(fail)?;
            let (other, _other) = self.connect_only(None).await.map_err(fail)?;
            // The first of a pool may be taken by others in between.
            for _ in 0..3 {
                let own = process(&one, PROCESS).await.map_err(fail)?;
                let busy = match process(&other, IN_TRANSACTION).await {
                    Err(error) if error.code() == Some(&SqlState::PROTOCOL_VIOLATION) => {
                        return Err(Error::config(
                            "there is a pooler in statement mode between here and PostgreSQL, and batches need transactions; use its transaction mode with `pooler: transaction`, or its session mode",
                        ));
                    }
                    busy => busy.map_err(fail)?,
                };
                // Where they are the same, the other has the only one, for as long as its transaction lasts.
                let same = own != busy && process(&one, PROCESS).await.map_err(fail)? == own;
                other.batch_execute("COMMIT").await.map_err(fail)?;
                if !same {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        within(operation, self.timeout, asking).await
    }

    async fn connect_only(
        &self,
        notifications: Option<Notifications>,
    ) -> Result<(Client, Task), tokio_postgres::Error> {
        let (client, mut connection) = self.config.connect(self.tls.clone()).await?;
        let task = tokio::spawn(async move {
            while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await
            {
                if let (AsyncMessage::Notification(said), Some(to)) = (message, &notifications) {
                    let _ = to.send(said);
                }
            }
        });
        Ok((client, Task(Some(task))))
    }

    /// Compares the server's clock with the one here.
    pub(super) async fn read_clock(&self, client: &Client) -> Result<(), tokio_postgres::Error> {
        self.compare_clocks(client, CLOCK).await
    }

    async fn compare_clocks(
        &self,
        client: &Client,
        sql: &str,
    ) -> Result<(), tokio_postgres::Error> {
        let said = client.simple_query(sql).await?;
        let time = said.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0)?.parse::<i64>().ok(),
            _ => None,
        });
        let now = millis(SystemClock.monotonic());
        self.ahead.store(time.unwrap_or_default().saturating_sub(now), Ordering::Relaxed);
        Ok(())
    }
}

const PROCESS: &str = "SELECT pg_backend_pid()";
const IN_TRANSACTION: &str = "BEGIN; SELECT pg_backend_pid()";

/// What the server says of the process that answers.
async fn process(client: &Client, sql: &str) -> Result<Option<String>, tokio_postgres::Error> {
    let said = client.simple_query(sql).await?;
    Ok(said.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    }))
}

const CLOCK: &str = "SELECT floor(date_part('epoch', clock_timestamp()) * 1000)::bigint";

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

/// Ends a task that nobody took over: of a connection that was given up before it was ready.
struct Task(Option<JoinHandle<()>>);

impl Drop for Task {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

impl deadpool_postgres::Connect for Connector {
    fn connect(
        &self,
        _: &Config,
    ) -> BoxFuture<'_, Result<(Client, JoinHandle<()>), tokio_postgres::Error>> {
        Box::pin(self.connect(None))
    }
}

/// No TLS within a machine.
fn default_tls(config: &Config) -> Tls {
    match config.get_ssl_mode() {
        SslMode::Disable => return Tls::Disable,
        SslMode::Require => return Tls::Require,
        _ => {}
    }
    let here = |host: &Host| match host {
        Host::Tcp(name) => {
            name == "localhost"
                || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        }
        #[cfg(unix)]
        Host::Unix(_) => true,
    };
    let all_here = if config.get_hostaddrs().is_empty() {
        config.get_hosts().iter().all(here)
    } else {
        config.get_hostaddrs().iter().all(std::net::IpAddr::is_loopback)
    };
    if all_here { Tls::Disable } else { Tls::Require }
}

fn tls_config(tls: Tls, ca: Option<&Path>) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    match (tls, ca) {
        (Tls::Disable, _) => {}
        (Tls::Require, None) => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        (Tls::Require, Some(path)) => {
            let wrong = |what: &str| Error::config(format!("`ca`: {} {what}", path.display()));
            let certificates = CertificateDer::pem_file_iter(path)
                .map_err(|error| wrong("cannot be read").with_source(error))?;
            for certificate in certificates {
                let certificate = certificate.map_err(|error| {
                    wrong("is not a file of certificates (PEM)").with_source(error)
                })?;
                roots.add(certificate).map_err(|error| {
                    wrong("holds a certificate that cannot be read").with_source(error)
                })?;
            }
            if roots.is_empty() {
                return Err(wrong("holds no certificate (PEM)"));
            }
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::internal("TLS is set up wrongly").with_source(error))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// What a session begins with. The question for the log fails on a standby: where a name leads to one
/// after a failover, what is read there may be old.
fn setup(settings: &PostgresConfig, origin: &str) -> String {
    let only = if only_on_primary(settings) { ON_PRIMARY } else { "" };
    if settings.pooler.is_some() {
        return format!("{only}{CLOCK}");
    }
    // Where the database or the role says so, it is left on.
    let reading = if settings.read_only { "SET default_transaction_read_only = on;" } else { "" };
    format!(
        "{}SET default_transaction_isolation = 'read committed';\
         {reading}\
         SET client_min_messages = error;\
         SET tierstack.origin = '{origin}';\
         {only}{CLOCK}",
        set(settings, "SET")
    )
}

const ON_PRIMARY: &str = "SELECT pg_current_wal_lsn();";

/// A standby has no change feed.
fn only_on_primary(settings: &PostgresConfig) -> bool {
    !settings.read_only || settings.change_feed
}

/// The settings of a session or a transaction. What the database or the role sets for all programs must
/// neither weaken what the profile guarantees, nor make a page of a scan read a whole table: with plans that
/// are made once for every range, PostgreSQL may prefer to sort.
fn set(settings: &PostgresConfig, set: &str) -> String {
    let sync = if settings.durability == Durability::ProcessCrash { "off" } else { "on" };
    // The other half is for the way there: see `Connections::fence`.
    let statement = (settings.timeout.0 / 2).as_millis();
    [
        ("synchronous_commit", sync),
        ("statement_timeout", statement.to_string().as_str()),
        ("lock_timeout", "0"),
        ("idle_in_transaction_session_timeout", "0"),
        ("enable_seqscan", "off"),
        ("enable_bitmapscan", "off"),
        ("enable_sort", "off"),
        ("jit", "off"),
        // Fewer are other numbers, which a row that is read and written again would then have.
        ("extra_float_digits", "1"),
    ]
    .map(|(name, value)| format!("{set} {name} = {value};"))
    .concat()
}

/// How statements are sent, and what each transaction begins with where there is no session.
pub(super) fn way(settings: &PostgresConfig) -> (Way, Option<String>) {
    match settings.pooler {
        None => (Way::Session, None),
        Some(Pooler::Transaction) => {
            let set = set(settings, "SET LOCAL");
            let reading = if settings.read_only { " READ ONLY" } else { "" };
            let only = if only_on_primary(settings) { ON_PRIMARY } else { "" };
            let begin = format!("BEGIN ISOLATION LEVEL READ COMMITTED{reading};{set}{only}");
            (Way::Transaction(begin.into()), Some(set))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_host_has_its_turn_within_the_deadline() {
        for (url, hosts) in [("postgres://app@one/x", 1), ("postgres://app@one,two,three/x", 3)] {
            let settings = PostgresConfig::new(url);
            let config = Connector::new(&settings, "origin").unwrap().config();
            assert!(*config.get_connect_timeout().unwrap() * hosts <= settings.connect_timeout.0);
        }
    }
}
