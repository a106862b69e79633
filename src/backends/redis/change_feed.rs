//! What others change, by client tracking of the server.
//!
//! Each subscription has a connection of its own to every server, on which the server says which keys were
//! changed: by others and by ourselves, by expiry and by eviction. A connection that answers proves nothing: a
//! proxy may have ended the tracking, or reads may lead to another server since. So each heartbeat has the
//! server say that it tracks for this connection, see [`Proof`]. Within [`LATEST`] the change feed goes on, or
//! are lost and said to be. In a cluster it also looks whether other nodes have the slots now.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::stream::unfold;
use futures_util::{FutureExt, StreamExt};
use parking_lot::Mutex;
use redis::{Cmd, Pipeline, PushInfo, PushKind, Value as Answer};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::Shared;
use super::connection::{Link, Live, within};
use super::error::{failed, late, said};
use super::open::facts;
use super::router::{Kind, answer};
use crate::error::{ErrorKind, Operation, Result};
use crate::store::{Change, Changes};

/// Between two heartbeats.
const BEAT: Duration = Duration::from_secs(1);
/// A server that does not answer a heartbeat within this is lost.
const SILENCE: Duration = Duration::from_secs(2);
/// How late a change is reported, or the loss of the connection.
pub(super) const LATEST: Duration = Duration::from_secs(5);

/// Keys that wait for a reader that has fallen behind, until they become "all".
const WAITING_KEYS: usize = 10_000;
/// Keys in one message of the feed.
const TOGETHER: usize = 1024;

/// What was not read yet.
#[derive(Default)]
struct Queue {
    changes: VecDeque<Change>,
    keys: usize,
    lost: bool,
    ended: bool,
}

#[derive(Default)]
struct Inbox {
    queue: Mutex<Queue>,
    news: Notify,
}

impl Queue {
    fn push(&mut self, change: Change) {
        match change {
            Change::Keys(more) => {
                self.keys += more.len();
                if self.keys > WAITING_KEYS {
                    return self.push(Change::All);
                }
                match self.changes.back_mut() {
                    Some(Change::Keys(keys)) if keys.len() + more.len() <= TOGETHER => {
                        keys.extend(more);
                    }
                    _ => self.changes.push_back(Change::Keys(more)),
                }
            }
            // The server names keys only.
            Change::Prefix(_) => self.changes.push_back(change),
            // It covers everything before it but a loss, which a reader that is behind is told of as well. While
            // a server is lost, it must not end the loss.
            Change::All => {
                let untold = self.changes.contains(&Change::Lost);
                self.changes.clear();
                self.keys = 0;
                if untold && !self.lost {
                    self.changes.push_back(Change::Lost);
                }
                self.changes.push_back(Change::All);
                if self.lost {
                    self.changes.push_back(Change::Lost);
                }
            }
            Change::Lost => {
                self.lost = true;
                self.changes.push_back(Change::Lost);
            }
        }
    }

    fn pop(&mut self) -> Option<Change> {
        let change = self.changes.pop_front()?;
        if let Change::Keys(keys) = &change {
            self.keys -= keys.len();
        }
        Some(change)
    }
}

impl Inbox {
    fn push(&self, change: Change) {
        self.queue.lock().push(change);
        self.news.notify_one();
    }

    /// Some server is lost, or none any more.
    fn set_lost(&self, lost: bool) {
        let mut queue = self.queue.lock();
        if queue.lost != lost {
            queue.lost = lost;
            queue.push(if lost { Change::Lost } else { Change::All });
            drop(queue);
            self.news.notify_one();
        }
    }

    fn end(&self) {
        self.queue.lock().ended = true;
        self.news.notify_one();
    }

    async fn next(&self) -> Option<Change> {
        loop {
            {
                let mut queue = self.queue.lock();
                if queue.ended {
                    return None;
                }
                if let Some(change) = queue.pop() {
                    return Some(change);
                }
            }
            self.news.notified().await;
        }
    }
}

/// Ends the watch when the stream is dropped.
struct Watching {
    inbox: Arc<Inbox>,
    task: AbortHandle,
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(super) async fn subscribe(shared: &Arc<Shared>) -> Result<Changes> {
    let mut watch =
        Watch { shared: Arc::clone(shared), inbox: Arc::default(), tracked: HashMap::new() };
    for link in watch.servers().await? {
        watch.track(&link).await?;
    }
    let inbox = Arc::clone(&watch.inbox);
    let mut closing = shared.closing.subscribe();
    let task = tokio::spawn(async move {
        let inbox = Arc::clone(&watch.inbox);
        futures_util::future::select(
            watch.run().boxed(),
            closing.wait_for(|closed| *closed).boxed(),
        )
        .await;
        inbox.end();
    });
    let watching = Watching { inbox, task: task.abort_handle() };
    Ok(unfold(watching, |watching| async {
        watching.inbox.next().await.map(|change| (change, watching))
    })
    .boxed())
}

struct Watch {
    shared: Arc<Shared>,
    inbox: Arc<Inbox>,
    /// By address.
    tracked: HashMap<String, Tracked>,
}

/// A connection of the change feed.
struct Tracked {
    live: Live,
    proof: Proof,
    /// The connection for reads that was found to lead to the same server.
    reads: Option<Live>,
}

/// What a server says of itself on the connection of the change feed.
#[derive(Debug, PartialEq, Eq)]
struct Proof {
    /// Names one run of a server.
    run: Option<String>,
    /// How often databases were swapped, of which the server reports nothing.
    swaps: u64,
}

/// What a heartbeat found.
enum Heard {
    Well,
    /// Databases were swapped.
    Swapped,
    Not,
}

impl Watch {
    /// Has a server report changes from now on.
    async fn track(&mut self, link: &Arc<Link>) -> Result<()> {
        let inbox = Arc::clone(&self.inbox);
        let prefix = self.shared.place.prefix.clone();
        let index = self.shared.place.index.clone();
        let told = move |push: PushInfo| {
            if push.kind == PushKind::Invalidate
                && let Some(change) = understand(push.data, &prefix, index.as_deref())
            {
                inbox.push(change);
            }
        };
        let prefix = &self.shared.place.prefix;
        let tracking = async {
            let mut live = link.connect(told).await?;
            let mut pipeline = Pipeline::new();
            pipeline.add_command(self::tracking(prefix));
            let answers = live.send(&pipeline).await;
            let answers = answers.map_err(|error| failed(Operation::Changes, error))?;
            for value in answers {
                answer(Operation::Changes, value)?;
            }
            // After the tracking began, so that whatever comes after these answers is reported.
            let proof = prove(&mut live, prefix).await?;
            let mut tracked = Tracked { live, proof, reads: None };
            match tracked.reads_there(link).await {
                true => Ok(tracked),
                false => Err(said(
                    ErrorKind::Unavailable,
                    "the change feed is of another server than the one that is read",
                )),
            }
        };
        let servers = &self.shared.servers;
        let tracked = within(&*servers.clock, servers.timeout, tracking).await;
        let tracked = tracked.unwrap_or_else(|| Err(late(Operation::Changes)));
        let tracked = tracked.map_err(|error| error.with_operation(Operation::Changes))?;
        self.tracked.insert(link.address(), tracked);
        Ok(())
    }

    async fn run(mut self) {
        let clock = Arc::clone(&self.shared.servers.clock);
        loop {
            clock.sleep(BEAT).await;
            // Also after a look at the cluster that failed: what it reports then is not known.
            let Ok(servers) = self.servers().await else {
                self.inbox.set_lost(true);
                continue;
            };
            self.beat(&servers).await;
            let missing: Vec<_> = servers
                .into_iter()
                .filter(|link| !self.tracked.contains_key(&link.address()))
                .collect();
            if missing.is_empty() {
                self.inbox.set_lost(false);
                continue;
            }
            self.inbox.set_lost(true);
            let mut all = true;
            for link in missing {
                all &= self.track(&link).await.is_ok();
            }
            if all {
                self.inbox.set_lost(false);
            }
        }
    }

    /// Lets go of connections to other servers than these, and of those on which nothing more is reported.
    async fn beat(&mut self, servers: &[Arc<Link>]) {
        let clock = &*self.shared.servers.clock;
        let prefix = &self.shared.place.prefix;
        let beats = servers.iter().filter_map(|link| {
            let address = link.address();
            let mut tracked = self.tracked.remove(&address)?;
            Some(async move {
                let heard = within(clock, SILENCE, tracked.hears(link, prefix)).await;
                (address, tracked, heard.unwrap_or(Heard::Not))
            })
        });
        let heard = join_all(beats.collect::<Vec<_>>()).await;
        self.tracked.clear();
        for (address, tracked, heard) in heard {
            match heard {
                Heard::Not => continue,
                Heard::Swapped => self.inbox.push(Change::All),
                Heard::Well => {}
            }
            self.tracked.insert(address, tracked);
        }
    }

    /// The servers that have slots now, and those that may get some: a slot that moves there has entries on
    /// both.
    async fn servers(&self) -> Result<Vec<Arc<Link>>> {
        let Kind::Cluster(cluster) = &self.shared.servers.kind else {
            return self.shared.servers.all(Operation::Changes).await;
        };
        let looking = async {
            cluster.refresh(None).await?;
            let mut servers = cluster.primaries().await?;
            servers.extend(cluster.without_slots().await?);
            Ok(servers)
        };
        let servers = within(&*self.shared.servers.clock, SILENCE, looking).await;
        let servers = servers.unwrap_or_else(|| Err(late(Operation::Changes)));
        servers.map_err(|error| error.with_operation(Operation::Changes))
    }
}

impl Tracked {
    /// Whether changes are reported still.
    async fn hears(&mut self, link: &Link, prefix: &[u8]) -> Heard {
        let Ok(proof) = prove(&mut self.live, prefix).await else { return Heard::Not };
        if proof.run != self.proof.run || !self.reads_there(link).await {
            return Heard::Not;
        }
        let swapped = proof.swaps != self.proof.swaps;
        self.proof = proof;
        if swapped { Heard::Swapped } else { Heard::Well }
    }

    /// Whether reads, if there is a connection for them, lead to the server of the change feed. An address may have
    /// been given to another one. The connection that is found to be wrong is left.
    async fn reads_there(&mut self, link: &Link) -> bool {
        let Some(mut reads) = link.present() else { return true };
        if self.reads.as_ref().is_some_and(|known| known.is(&reads)) {
            return true;
        }
        let mut pipeline = Pipeline::new();
        pipeline.add_command(redis::cmd("INFO").arg("server").take());
        let answers = reads.send(&pipeline).await;
        let told = answers.ok().and_then(|answers| facts(answers.into_iter().next()?));
        let Some(told) = told else { return false };
        if told.get("run_id") != self.proof.run.as_ref() {
            link.leave(&reads);
            return false;
        }
        self.reads = Some(reads);
        true
    }
}

/// Has a server prove that it reports changes on this connection.
async fn prove(live: &mut Live, prefix: &[u8]) -> Result<Proof> {
    let mut pipeline = Pipeline::new();
    for command in proving() {
        pipeline.add_command(command);
    }
    let answers = live.send(&pipeline).await;
    let answers = answers.map_err(|error| failed(Operation::Changes, error))?;
    let answers = answers.into_iter().map(|value| answer(Operation::Changes, value));
    proof(answers.collect::<Result<_>>()?, prefix).ok_or_else(|| {
        said(
            ErrorKind::Unavailable,
            "the server sends no change feed on this connection; a proxy may have ended it, or the server is a replica by now",
        )
    })
}

/// What [`prove`] asks.
pub(super) fn proving() -> [Cmd; 2] {
    let info = redis::cmd("INFO").arg("server").arg("replication").arg("commandstats").take();
    [redis::cmd("CLIENT").arg("TRACKINGINFO").take(), info]
}

/// Nothing, if the answers are not those of a primary that tracks for this connection. In RESP2, to which a proxy
/// may have turned it, the first of them is no map, and nothing is reported.
fn proof(answers: Vec<Answer>, prefix: &[u8]) -> Option<Proof> {
    let mut answers = answers.into_iter();
    let Some(Answer::Map(tracking)) = answers.next() else { return None };
    let told = |name: &str| {
        tracking.iter().find(|(told, _)| text(told) == Some(name.as_bytes())).map(|(_, told)| told)
    };
    let has = |name: &str, wanted: &[u8]| match told(name) {
        Some(Answer::Array(all) | Answer::Set(all)) => {
            all.iter().any(|one| text(one) == Some(wanted))
        }
        _ => false,
    };
    if !has("flags", b"on") || !has("flags", b"bcast") || !has("prefixes", prefix) {
        return None;
    }
    let mut told = facts(answers.next()?)?;
    if told.get("role").is_some_and(|role| role != "master") {
        return None;
    }
    let swaps = told
        .get("cmdstat_swapdb")
        .and_then(|stats| stats.strip_prefix("calls=")?.split(',').next()?.parse().ok());
    Some(Proof { run: told.remove("run_id"), swaps: swaps.unwrap_or(0) })
}

fn text(answer: &Answer) -> Option<&[u8]> {
    match answer {
        Answer::BulkString(text) => Some(text),
        Answer::SimpleString(text) => Some(text.as_bytes()),
        Answer::Okay => Some(b"OK"),
        _ => None,
    }
}

/// Has a server say what is changed, on the connection that it is sent on.
pub(super) fn tracking(prefix: &[u8]) -> Cmd {
    let mut command = redis::cmd("CLIENT");
    command.arg("TRACKING").arg("ON").arg("BCAST");
    if !prefix.is_empty() {
        command.arg("PREFIX").arg(prefix);
    }
    command
}

/// What the server says was changed. Nothing at all means everything.
fn understand(data: Vec<Answer>, prefix: &[u8], index: Option<&[u8]>) -> Option<Change> {
    let Some(Answer::Array(keys)) = data.into_iter().next() else { return Some(Change::All) };
    let keys = keys.into_iter().filter_map(|key| match key {
        Answer::BulkString(key) if Some(&*key) != index => {
            let own = key.strip_prefix(prefix).filter(|own| !own.is_empty())?;
            Some(Bytes::copy_from_slice(own))
        }
        _ => None,
    });
    let keys: Vec<Bytes> = keys.collect();
    (!keys.is_empty()).then_some(Change::Keys(keys))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(count: usize) -> Change {
        Change::Keys((0..count).map(|n| n.to_string().into()).collect())
    }

    fn waiting(inbox: &Inbox) -> Vec<Change> {
        inbox.queue.lock().changes.iter().cloned().collect()
    }

    #[test]
    fn a_reader_that_falls_behind_gets_all() {
        let mut queue = Queue::default();
        for _ in 0..WAITING_KEYS {
            queue.push(keys(1));
        }
        assert!(queue.changes.len() <= WAITING_KEYS / TOGETHER + 1);
        queue.push(keys(1));
        assert_eq!(queue.pop(), Some(Change::All));
        assert_eq!(queue.pop(), None);
        queue.push(keys(2));
        assert_eq!(queue.pop(), Some(keys(2)));
        assert_eq!(queue.keys, 0);
    }

    #[test]
    fn all_does_not_end_a_loss_that_lasts() {
        let inbox = Inbox::default();
        inbox.set_lost(true);
        inbox.push(Change::All);
        assert_eq!(waiting(&inbox), [Change::All, Change::Lost]);
    }

    #[test]
    fn a_reader_that_falls_behind_is_told_of_a_loss_that_is_over() {
        let inbox = Inbox::default();
        for _ in 0..2 {
            inbox.push(keys(1));
            inbox.set_lost(true);
            inbox.set_lost(false);
            assert_eq!(waiting(&inbox), [Change::Lost, Change::All]);
        }
    }

    #[test]
    fn what_the_server_says_is_understood() {
        let said = |keys: &[&str]| {
            let keys = keys.iter().map(|key| Answer::BulkString(key.as_bytes().to_vec()));
            vec![Answer::Array(keys.collect())]
        };
        let index = b"{t}tierstack:index";
        assert_eq!(understand(vec![Answer::Nil], b"", None), Some(Change::All));
        assert_eq!(
            understand(said(&["{t}a", "{t}tierstack:index"]), b"{t}", Some(index)),
            Some(Change::Keys(vec!["a".into()]))
        );
        assert_eq!(understand(said(&["{t}tierstack:index"]), b"{t}", Some(index)), None);
    }
}
