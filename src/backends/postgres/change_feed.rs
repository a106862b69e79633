//! The change feed: triggers on the table notify a channel, and one connection of a
//! store listens to it for all subscribers.
//!
//! The triggers tell each key in hexadecimal, behind the origin of the writer: the random name that each
//! store gives to its sessions, by which it leaves out its own writes. They are row-level ones, which fire
//! wherever a row is changed: through a parent of the table, and by logical replication. An invalidation is told
//! in the same way, without an origin: by keys, or behind `^` by prefix. A notification is delivered when
//! the transaction commits.
//!
//! Every other second the listener asks a question, to which an answer must come soon: so a line that was cut
//! silently is noticed. It asks whether the table of that name is still the one it listens to, and whether
//! its triggers are still there and in order; and it notifies itself, and must receive that. Where the table or a
//! trigger was altered in between, anything may have changed unnoticed, and that is reported.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use deadpool_postgres::ClientWrapper;
use futures_util::StreamExt;
use futures_util::stream::unfold;
use parking_lot::Mutex;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_postgres::Notification;

use super::connect::Connector;
use super::error::failed;
use super::key::{Key, Spoken};
use super::own_table::{self, Table, literal};
use super::pool::{Connections, Lease, within};
use crate::clock::{Clock, SystemClock};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::store::{Change, Changes};
use crate::types::Scope;

/// How late a change is reported at most, as is the loss of the connection.
pub(super) const WITHIN: Duration = Duration::from_secs(5);
/// From one answer of the server to the next question, and from that to its answer at most.
const BEAT: Duration = Duration::from_secs(2);
const ANSWER: Duration = Duration::from_secs(3);

/// Changes that a subscriber may be behind before it is told that everything may have changed.
const BEHIND: usize = 4096;
/// Keys that are handed on together.
const TOGETHER: usize = 1000;

/// The first pause between attempts to be connected again.
const PAUSE: Duration = Duration::from_millis(50);

/// Sorts behind what other triggers are most likely to be named.
const TRIGGER: &str = "~tierstack_announce";

/// The body of the function that the triggers call.
fn body(key: &Key) -> String {
    format!(include_str!("announce_body.sql"), old = key.sent("OLD."), new = key.sent("NEW."))
}

/// The function and the triggers.
pub(super) fn triggers(table: &Table, key: &Key) -> String {
    let mut name = format!("tierstack_announce_{}", table.name);
    if own_table::check_name(&name).is_err() {
        name = format!("tierstack_announce_{:08x}", crc32fast::hash(table.name.as_bytes()));
    }
    format!(
        include_str!("announce.sql"),
        function = Table { schema: table.schema.clone(), name },
        table = table,
        body = body(key),
        trigger = TRIGGER,
        literal = literal(&table.to_string()),
    )
}

/// The table that has the name now, what changes when it or its triggers are altered, and whether these are
/// there, enabled and as they are made here, with no trigger behind them that could change a key; and whether
/// there are tables that inherit from it, whose rows are read with its own.
const STATE: &str = "SELECT c.oid,
        concat_ws(' ', c.xmin, (SELECT string_agg(concat_ws(' ', t.xmin, p.xmin), ' ' ORDER BY t.oid)
            FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid WHERE t.tgrelid = c.oid AND NOT t.tgisinternal)),
        (SELECT count(*) = 2 FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
            WHERE t.tgrelid = c.oid AND t.tgenabled = 'A' AND p.prosrc = $2
            AND (t.tgname, t.tgtype) IN ((text '~tierstack_announce', 31), (text 'tierstack_announce_truncate', 32)))
        AND NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal
            AND t.tgtype & 3 = 3 AND t.tgname > '~tierstack_announce'),
        EXISTS (SELECT FROM pg_inherits WHERE inhparent = c.oid)
    FROM pg_class c WHERE c.oid = to_regclass($1)";

/// What is there to report changes. It differs whenever something was altered.
#[derive(PartialEq, Eq)]
pub(super) struct Installed {
    oid: u32,
    fingerprint: String,
    pub(super) in_order: bool,
    inherited: bool,
}

impl Installed {
    /// `None`: there is no such table.
    pub(super) async fn look(
        client: &ClientWrapper,
        table: &Table,
        key: &Key,
    ) -> Result<Option<Self>, tokio_postgres::Error> {
        let statement = client.prepare_cached(STATE).await?;
        let row = client.query_opt(&statement, &[&table.to_string(), &body(key)]).await?;
        let read = |row: tokio_postgres::Row| {
            Ok(Self {
                oid: row.try_get(0)?,
                fingerprint: row.try_get(1)?,
                in_order: row.try_get(2)?,
                inherited: row.try_get(3)?,
            })
        };
        row.map(read).transpose()
    }

    /// Fails where changes would go unnoticed.
    pub(super) fn check(self, table: &Table) -> Result<Self> {
        let why = match self {
            Self { inherited: true, .. } => format!(
                "other tables inherit from {table}, and what is written to them is not in the change feed; leave `change_feed` out"
            ),
            Self { in_order: false, .. } => format!(
                "the change feed needs triggers on the table {table}: they are missing, disabled, of another version, or a BEFORE trigger has a name that sorts behind `{TRIGGER}`; make them with what `tierstack schema postgres` prints below CREATE TABLE"
            ),
            _ => return Ok(self),
        };
        Err(Error::config(why))
    }
}

const NOTIFY: &str = "SELECT pg_notify('tierstack_' || to_regclass($1)::oid, payload) FROM unnest($2::text[]) AS payload";

/// What a payload holds at most, of the less than 8000 bytes that the server takes.
const PAYLOAD: usize = 7900;

/// Any key.
const ANY: &str = "*";

/// The keys of a prefix. No digit, so that a version that does not know it takes it for any key.
const PREFIX: char = '^';

/// The subscriptions of a store.
pub(super) struct Announcements {
    connector: Connector,
    connections: Arc<Connections>,
    table: Table,
    key: Spoken,
    origin: String,
    listening: Mutex<Option<Listening>>,
}

/// The task that receives changes, for as long as there are subscribers.
struct Listening {
    changes: broadcast::WeakSender<Change>,
    state: watch::Receiver<State>,
    task: JoinHandle<()>,
}

#[derive(Clone, Debug)]
enum State {
    Connecting,
    Active,
    /// The last attempt failed.
    Lost(Error),
}

impl Announcements {
    pub(super) fn new(
        connector: Connector,
        connections: Arc<Connections>,
        table: Table,
        key: Spoken,
        origin: String,
    ) -> Arc<Self> {
        Arc::new(Self { connector, connections, table, key, origin, listening: Mutex::default() })
    }

    /// A subscription. On return every later change is reported.
    pub(super) async fn subscribe(self: &Arc<Self>) -> Result<Changes> {
        let (receiver, mut state) = self.listen();
        let active = async {
            let mut last =
                Error::new(ErrorKind::Unavailable, "the connection of the change feed is lost");
            loop {
                match state.borrow_and_update().clone() {
                    State::Active => return Ok(()),
                    State::Lost(error) if error.kind() != ErrorKind::Unavailable => {
                        return Err(error);
                    }
                    State::Lost(error) => last = error,
                    State::Connecting => {}
                }
                if state.changed().await.is_err() {
                    return Err(last);
                }
            }
        };
        self.connections.within(Operation::Changes, active).await?;
        Ok(changes(receiver))
    }

    /// Joins the subscribers, or begins to listen.
    fn listen(self: &Arc<Self>) -> (broadcast::Receiver<Change>, watch::Receiver<State>) {
        let mut listening = self.listening.lock();
        if let Some(now) = &*listening
            && let Some(sender) = now.changes.upgrade()
        {
            return (sender.subscribe(), now.state.clone());
        }
        let (sender, receiver) = broadcast::channel(BEHIND);
        let (tell, state) = watch::channel(State::Connecting);
        let changes = sender.downgrade();
        let task = tokio::spawn(listen(Arc::downgrade(self), sender, tell));
        *listening = Some(Listening { changes, state: state.clone(), task });
        (receiver, state)
    }

    /// Tells every process with the change feed, this one too: caches here may be in front of another part of the
    /// stack than the one that was asked.
    pub(super) async fn tell(&self, scope: &Scope) -> Result<()> {
        let payloads = payloads(&self.key.told(scope));
        if payloads.is_empty() {
            return Ok(());
        }
        let (operation, table) = (Operation::Invalidate, self.table.to_string());
        let (table, payloads) = (&table, &payloads);
        let notify = |lease: Lease| async move {
            let done = async {
                let statement = lease.prepare_cached(NOTIFY).await?;
                lease.execute(&statement, &[table, payloads]).await
            };
            let done = done.await.map_err(|error| failed(operation, error));
            lease.finish(done)
        };
        self.connections.read(operation, notify).await.map(drop)
    }

    /// Ends all subscriptions.
    pub(super) fn close(&self) {
        if let Some(listening) = self.listening.lock().take() {
            listening.task.abort();
        }
    }
}

impl Drop for Announcements {
    fn drop(&mut self) {
        self.close();
    }
}

fn changes(receiver: broadcast::Receiver<Change>) -> Changes {
    unfold(receiver, |mut receiver| async move {
        match receiver.recv().await {
            Ok(change) => Some((change, receiver)),
            // What was missed may have been a loss that is over, or one that is not; then it is told
            // again, as `Lost` stays the last in the channel.
            Err(RecvError::Lagged(_)) => Some((Change::All, receiver)),
            Err(RecvError::Closed) => None,
        }
    })
    .boxed()
}

/// Receives changes until there are no subscribers any more, connecting again as often as it takes.
async fn listen(
    announcements: Weak<Announcements>,
    sender: broadcast::Sender<Change>,
    tell: watch::Sender<State>,
) {
    let work = async {
        loop {
            let Some(this) = announcements.upgrade() else { return };
            let mut pauses = this.connections.backoff(PAUSE, usize::MAX);
            let session = loop {
                match this.session().await {
                    Ok(session) => break session,
                    Err(error) => {
                        let _ = tell.send(State::Lost(error));
                        SystemClock.sleep(pauses.next().unwrap_or(PAUSE)).await;
                    }
                }
            };
            let (origin, table) = (this.origin.clone(), this.table.clone());
            let key = this.key.clone();
            // The store may be dropped while this waits.
            drop(this);
            let _ = sender.send(Change::All);
            let _ = tell.send(State::Active);
            let listener = Listener { session, table, key, origin };
            let error = listener.follow(|change| drop(sender.send(change))).await;
            tracing::warn!(%error, "the change feed is lost");
            // In this order: a subscriber that comes in between waits for the next connection, or is told of the loss.
            let _ = tell.send(State::Lost(error));
            let _ = sender.send(Change::Lost);
        }
    };
    let unheard = async {
        loop {
            sender.closed().await;
            let Some(this) = announcements.upgrade() else { return };
            let mut listening = this.listening.lock();
            // Somebody may have subscribed a moment ago, under this lock.
            if sender.receiver_count() == 0 {
                *listening = None;
                return;
            }
        }
    };
    tokio::select! {
        () = work => {}
        () = unheard => {}
    }
}

/// A connection that listens, to the channel of the table and to one of its own.
struct Session {
    client: ClientWrapper,
    notifications: mpsc::UnboundedReceiver<Notification>,
    installed: Installed,
}

/// The channel on which a store proves to itself that its change feed is alive.
fn own_channel(origin: &str) -> String {
    format!("tierstack_{origin}")
}

impl Announcements {
    async fn session(&self) -> Result<Session> {
        let operation = Operation::Changes;
        let fail = |error| failed(operation, error);
        let (sender, notifications) = mpsc::unbounded_channel();
        let client = self.connector.client(operation, Some(sender)).await?;
        let begin = async {
            let look = || async {
                let installed = Installed::look(&client, &self.table, &self.key.sql).await;
                installed.map_err(fail)?.ok_or_else(|| gone(&self.table))
            };
            let oid = look().await?.oid;
            let own = own_channel(&self.origin);
            let listen = format!("LISTEN \"tierstack_{oid}\"; LISTEN \"{own}\"");
            client.batch_execute(&listen).await.map_err(fail)?;
            // As it is from the moment on at which notifications arrive.
            let installed = look().await?.check(&self.table)?;
            if installed.oid == oid { Ok(installed) } else { Err(replaced(&self.table)) }
        };
        let installed = within(operation, ANSWER, begin).await;
        let installed =
            installed.map_err(|error| error.with_operation(operation).with_layer("postgres"))?;
        Ok(Session { client, notifications, installed })
    }
}

fn gone(table: &Table) -> Error {
    Error::config(format!("there is no table {table} any more"))
}

fn replaced(table: &Table) -> Error {
    Error::new(ErrorKind::Unavailable, format!("another table has the name {table} now"))
}

struct Listener {
    session: Session,
    table: Table,
    key: Spoken,
    origin: String,
}

impl Listener {
    /// Passes changes on until the feed is lost, and returns the reason.
    async fn follow(self, announce: impl Fn(Change)) -> Error {
        let Self { session, table, key, origin } = self;
        let Session { client, mut notifications, mut installed } = session;
        let operation = Operation::Changes;
        let (own, heard) = (own_channel(&origin), Notify::new());
        let prove = format!("NOTIFY \"{own}\"");
        let beats = async {
            loop {
                SystemClock.sleep(BEAT).await;
                let asking = async {
                    let fail = |error| failed(operation, error);
                    client.batch_execute(&prove).await.map_err(fail)?;
                    heard.notified().await;
                    let found = Installed::look(&client, &table, &key.sql).await.map_err(fail)?;
                    found.ok_or_else(|| gone(&table))?.check(&table)
                };
                match within(operation, ANSWER, asking).await {
                    Err(error) => return error,
                    Ok(found) if found == installed => {}
                    Ok(found) if found.oid != installed.oid => return replaced(&table),
                    Ok(found) => {
                        installed = found;
                        announce(Change::All);
                    }
                }
            }
        };
        let mut beats = std::pin::pin!(beats);
        loop {
            let first = tokio::select! {
                first = notifications.recv() => first,
                error = &mut beats => return error,
            };
            let Some(first) = first else {
                let message = "the server ended the connection of the change feed";
                return Error::new(ErrorKind::Unavailable, message).with_operation(operation);
            };
            // Keys that were changed together mostly arrive together.
            let mut keys = Vec::new();
            let mut next = Some(first);
            while let Some(notification) = next {
                if notification.channel() == own {
                    heard.notify_one();
                } else {
                    let change = parse(notification.payload(), &origin);
                    match change.map(|change| key.heard(change)) {
                        None => {}
                        Some(Change::Keys(more)) => keys.extend(more),
                        Some(change) => {
                            if !keys.is_empty() {
                                announce(Change::Keys(std::mem::take(&mut keys)));
                            }
                            announce(change);
                        }
                    }
                }
                next = if keys.len() < TOGETHER { notifications.try_recv().ok() } else { None };
            }
            if !keys.is_empty() {
                announce(Change::Keys(keys));
            }
        }
    }
}

/// What is to be told of an invalidation, in as many notifications as it takes. What fits into none is told as
/// one of everything.
fn payloads(scope: &Scope) -> Vec<String> {
    let mut payloads: Vec<String> = Vec::new();
    match scope {
        Scope::Keys(keys) => {
            for key in keys {
                let key = hex(key);
                match payloads.last_mut() {
                    _ if key.len() + 1 > PAYLOAD => return vec![format!(" {ANY}")],
                    Some(last) if last.len() + 1 + key.len() <= PAYLOAD => {
                        last.push(',');
                        last.push_str(&key);
                    }
                    _ => payloads.push(format!(" {key}")),
                }
            }
        }
        Scope::Prefix(prefix) if 2 * prefix.len() + 2 <= PAYLOAD => {
            payloads.push(format!(" {PREFIX}{}", hex(prefix)));
        }
        Scope::Prefix(_) | Scope::All => payloads.push(format!(" {ANY}")),
    }
    payloads
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// What a payload reports, unless it is of this store itself.
fn parse(payload: &str, own: &str) -> Option<Change> {
    let keys = match payload.split_once(' ') {
        Some((origin, _)) if origin == own => return None,
        Some((_, ANY)) | None => return Some(Change::All),
        Some((_, keys)) => keys,
    };
    if let Some(prefix) = keys.strip_prefix(PREFIX) {
        return Some(unhex(prefix).map_or(Change::All, Change::Prefix));
    }
    // Anybody may notify the channel; what is not understood may have changed anything.
    let keys: Option<Vec<Bytes>> = keys.split(',').map(unhex).collect();
    Some(keys.map_or(Change::All, Change::Keys))
}

fn unhex(text: &str) -> Option<Bytes> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pairs = text.as_bytes().chunks(2).map(|pair| match pair {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    });
    pairs.collect::<Option<Vec<u8>>>().map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_checked() {
        let keys = |keys: &[&'static str]| {
            Some(Change::Keys(keys.iter().map(|key| Bytes::from(*key)).collect()))
        };
        assert_eq!(parse("me 61", "me"), None);
        assert_eq!(
            parse("you 61,6Aff", "me").map(|change| format!("{change:?}")),
            Some("Keys(2)".into())
        );
        assert_eq!(parse(" 6162", "me"), keys(&["ab"]));
        for odd in ["you *", "", "you", "you 6", "you 6g", "you 61,6", "you é1"] {
            assert_eq!(parse(odd, "me"), Some(Change::All), "{odd}");
        }
    }

    #[test]
    fn an_invalidation_is_understood_as_it_was_meant() {
        let told = |scope: Scope| -> Vec<_> {
            let payloads = payloads(&scope);
            assert!(payloads.iter().all(|payload| payload.len() <= PAYLOAD));
            payloads.iter().map(|payload| parse(payload, "me")).collect()
        };
        let keys = |count: usize| -> Vec<Bytes> {
            (0..count).map(|n| Bytes::from(format!("\0key {n}"))).collect()
        };
        assert_eq!(told(Scope::All), [Some(Change::All)]);
        assert_eq!(told(Scope::Keys(Vec::new())), []);
        assert_eq!(told(Scope::Keys(keys(3))), [Some(Change::Keys(keys(3)))]);
        let mut many = Vec::new();
        for change in told(Scope::Keys(keys(5000))) {
            let Some(Change::Keys(keys)) = change else { panic!("not by keys") };
            many.extend(keys);
        }
        assert_eq!(many, keys(5000));
        for prefix in [Bytes::new(), Bytes::from_static(b"user:\xff"), vec![0; 3949].into()] {
            assert_eq!(told(Scope::Prefix(prefix.clone())), [Some(Change::Prefix(prefix))]);
        }
        // What does not fit.
        let long = |bytes: usize| Bytes::from(vec![b'l'; bytes]);
        assert_eq!(told(Scope::Prefix(long(3950))), [Some(Change::All)]);
        assert_eq!(told(Scope::Keys(vec!["k".into(), long(3950)])), [Some(Change::All)]);
        assert_eq!(told(Scope::Keys(vec![long(3949)])), [Some(Change::Keys(vec![long(3949)]))]);
        assert_eq!(parse("you ^6", "me"), Some(Change::All));
    }

    #[test]
    fn the_bound_covers_a_question_and_its_answer() {
        assert!(BEAT + ANSWER <= WITHIN);
        assert!(STATE.contains(&format!("'{TRIGGER}'")));
    }
}
