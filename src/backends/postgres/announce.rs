//! Announcements of what others write: triggers on the table notify a channel, and one connection of a
//! store listens to it for all who subscribed.
//!
//! The triggers tell the keys in hexadecimal, behind the origin of the writer: the random name that each
//! store gives to its sessions, by which it leaves out its own writes. An invalidation is told in the same
//! way, without an origin: by keys, or behind `^` by prefix. A notification is delivered when
//! the transaction commits. A line that was cut without a word is noticed by a question that is asked
//! every other second and must be answered soon; the question is whether the triggers are still there.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use deadpool_postgres::ClientWrapper;
use futures_util::StreamExt;
use futures_util::stream::unfold;
use parking_lot::Mutex;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::connect::Connector;
use super::failure::failed;
use super::inspect::Found;
use super::pool::{Connections, Lease, within};
use super::schema::{Table, literal, quoted};
use crate::clock::{Clock, SystemClock};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::store::{Change, Changes};
use crate::types::Scope;

/// How late a change is announced at most, as is the loss of the connection.
pub(super) const WITHIN: Duration = Duration::from_secs(5);
/// From one answer of the server to the next question, and from that to its answer at most.
const BEAT: Duration = Duration::from_secs(2);
const ANSWER: Duration = Duration::from_secs(3);

/// Changes that a subscriber may be behind before it is told that everything may have changed.
const BEHIND: usize = 4096;

/// The first pause between attempts to be connected again.
const PAUSE: Duration = Duration::from_millis(50);

const COMMENT: &str = "tierstack announce 1";

/// The function and the triggers.
pub(super) fn triggers(table: &Table, key: &str) -> String {
    let function = Table { schema: table.schema.clone(), name: "tierstack_announce".to_owned() };
    let mut sql = include_str!("announce.sql").to_owned();
    for (name, value) in [
        ("{function}", function.to_string()),
        ("{table}", table.to_string()),
        ("{key}", literal(key)),
        ("{comment}", COMMENT.to_owned()),
    ] {
        sql = sql.replace(name, &value);
    }
    for event in ["insert", "update", "delete", "truncate"] {
        // Also for rows that logical replication brings.
        sql.push_str(&format!(
            "ALTER TABLE {table} ENABLE ALWAYS TRIGGER {};\n",
            quoted(&format!("tierstack_announce_{event}"))
        ));
    }
    sql
}

/// Whether the triggers are there, and announce.
const SET_UP: &str = "SELECT count(*) = 4 FROM pg_trigger WHERE tgrelid = $1 AND tgname LIKE 'tierstack\\_announce\\_%' AND tgenabled = 'A' AND obj_description(tgfoid, 'pg_proc') = 'tierstack announce 1'";

pub(super) async fn is_set_up(
    client: &ClientWrapper,
    oid: u32,
) -> Result<bool, tokio_postgres::Error> {
    let statement = client.prepare_cached(SET_UP).await?;
    client.query_one(&statement, &[&oid]).await?.try_get(0)
}

const NOTIFY: &str = "SELECT pg_notify($1, payload) FROM unnest($2::text[]) AS payload";

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
    found: Found,
    origin: String,
    listening: Mutex<Option<Listening>>,
}

/// The task that listens, for as long as somebody subscribes.
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
        found: Found,
        origin: String,
    ) -> Arc<Self> {
        Arc::new(Self { connector, connections, found, origin, listening: Mutex::default() })
    }

    /// A subscription. On return every later change is announced.
    pub(super) async fn subscribe(self: &Arc<Self>) -> Result<Changes> {
        let (receiver, mut state) = self.listen();
        let active = async {
            let mut last = Error::new(ErrorKind::Unavailable, "the listening connection is lost");
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

    /// Joins those who listen, or begins to.
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

    /// Tells every process that listens, this one too: caches here may stand in front of another part of the
    /// stack than the one that was asked.
    pub(super) async fn tell(&self, scope: &Scope) -> Result<()> {
        let payloads = payloads(scope);
        if payloads.is_empty() {
            return Ok(());
        }
        let (operation, channel) = (Operation::Invalidate, format!("tierstack_{}", self.found.oid));
        let (channel, payloads) = (&channel, &payloads);
        let notify = |lease: Lease| async move {
            let done = async {
                let statement = lease.prepare_cached(NOTIFY).await?;
                lease.execute(&statement, &[channel, payloads]).await
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

/// Listens until nobody subscribes any more, connecting again as often as it takes.
async fn listen(
    announcements: Weak<Announcements>,
    sender: broadcast::Sender<Change>,
    tell: watch::Sender<State>,
) {
    let work = async {
        loop {
            let Some(this) = announcements.upgrade() else { return };
            let mut pauses = this.connections.backoff(PAUSE, usize::MAX);
            let Session { client, mut payloads } = loop {
                match this.session().await {
                    Ok(session) => break session,
                    Err(error) => {
                        let _ = tell.send(State::Lost(error));
                        SystemClock.sleep(pauses.next().unwrap_or(PAUSE)).await;
                    }
                }
            };
            let (origin, oid) = (this.origin.clone(), this.found.oid);
            // The store may be dropped while this waits.
            drop(this);
            let _ = sender.send(Change::All);
            let _ = tell.send(State::Active);
            let error = follow(&client, oid, &mut payloads, |payload| {
                if let Some(change) = parse(payload, &origin) {
                    let _ = sender.send(change);
                }
            })
            .await;
            tracing::warn!(%error, "the connection that listens for changes of others is lost");
            // In this order: who subscribes in between waits for the next connection, or hears of the loss.
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

/// A connection that listens.
struct Session {
    client: ClientWrapper,
    payloads: mpsc::UnboundedReceiver<String>,
}

impl Announcements {
    async fn session(&self) -> Result<Session> {
        let operation = Operation::Changes;
        let (sender, payloads) = mpsc::unbounded_channel();
        let client = self.connector.client(operation, Some(sender)).await?;
        let begin = async {
            let fail = |error| failed(operation, error);
            let channel = format!("LISTEN \"tierstack_{}\"", self.found.oid);
            client.batch_execute(&channel).await.map_err(fail)?;
            if is_set_up(&client, self.found.oid).await.map_err(fail)? {
                Ok(())
            } else {
                Err(no_triggers(&self.found.table))
            }
        };
        within(operation, ANSWER, begin).await?;
        Ok(Session { client, payloads })
    }
}

fn no_triggers(table: &Table) -> Error {
    Error::config(format!(
        "the triggers of the table {table} that announce changes are gone; make them with what `tierstack schema postgres` prints"
    ))
    .with_operation(Operation::Changes)
    .with_layer("postgres")
}

/// Hands on what is announced until the connection is lost, and gives the reason.
async fn follow(
    client: &ClientWrapper,
    oid: u32,
    payloads: &mut mpsc::UnboundedReceiver<String>,
    mut announce: impl FnMut(&str),
) -> Error {
    let operation = Operation::Changes;
    let beats = async {
        loop {
            SystemClock.sleep(BEAT).await;
            let asking =
                async { is_set_up(client, oid).await.map_err(|error| failed(operation, error)) };
            match within(operation, ANSWER, asking).await {
                Ok(true) => {}
                Ok(false) => return Error::config("the triggers that announce changes are gone"),
                Err(error) => return error,
            }
        }
    };
    let mut beats = std::pin::pin!(beats);
    loop {
        tokio::select! {
            payload = payloads.recv() => match payload {
                Some(payload) => announce(&payload),
                None => {
                    let message = "the server ended the connection that listens";
                    return Error::new(ErrorKind::Unavailable, message).with_operation(operation);
                }
            },
            error = &mut beats => return error,
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

/// What a payload announces, unless it is of this store itself.
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
        assert!(SET_UP.contains(COMMENT));
    }
}
