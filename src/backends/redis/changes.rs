//! What others change, by client tracking of the server.
//!
//! Each subscription has a connection of its own to every server, on which the server says which keys were
//! changed: by others and by ourselves, by expiry and by eviction. A heartbeat finds out within
//! [`LATEST`] that a connection is lost, also one that just became silent. In a cluster it also looks
//! whether other nodes have the slots now.

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
use super::failure::{failed, late};
use super::link::{Link, Live, within};
use super::servers::{Kind, answer};
use crate::error::{Operation, Result};
use crate::store::{Change, Changes};

/// Between two heartbeats.
const BEAT: Duration = Duration::from_secs(1);
/// A server that does not answer a heartbeat within this is lost.
const SILENCE: Duration = Duration::from_secs(2);
/// How late a change is announced, or the loss of the connection.
pub(super) const LATEST: Duration = Duration::from_secs(5);

/// Keys that wait for a reader that has fallen behind, until they become "all".
const WAITING_KEYS: usize = 10_000;
/// Keys in one announcement.
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
            // It covers everything before it. While a server is lost, it must not end the loss.
            Change::All => {
                self.changes.clear();
                self.keys = 0;
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
    for link in shared.servers.all(Operation::Changes).await? {
        watch.track(link).await?;
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
    /// By address: the connections on which changes are announced.
    tracked: HashMap<String, Live>,
}

impl Watch {
    /// Has a server announce changes from now on.
    async fn track(&mut self, link: Arc<Link>) -> Result<()> {
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
        let tracking = async {
            let mut live = link.connect(told).await?;
            let mut pipeline = Pipeline::new();
            pipeline.add_command(self::tracking(&self.shared.place.prefix));
            let answers = live.send(&pipeline).await;
            let answers = answers.map_err(|error| failed(Operation::Changes, error))?;
            for value in answers {
                answer(Operation::Changes, value)?;
            }
            Ok(live)
        };
        let servers = &self.shared.servers;
        let live = within(&*servers.clock, servers.timeout, tracking).await;
        let live = live.unwrap_or_else(|| Err(late(Operation::Changes)))?;
        self.tracked.insert(link.address(), live);
        Ok(())
    }

    async fn run(mut self) {
        let clock = Arc::clone(&self.shared.servers.clock);
        loop {
            clock.sleep(BEAT).await;
            self.beat().await;
            // Also after a look at the cluster that failed: what it announces then is not known.
            let servers = self.servers().await;
            let Ok(servers) = servers else {
                self.inbox.set_lost(true);
                continue;
            };
            let addresses: Vec<String> = servers.iter().map(|link| link.address()).collect();
            self.tracked.retain(|address, _| addresses.contains(address));
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
                all &= self.track(link).await.is_ok();
            }
            if all {
                self.inbox.set_lost(false);
            }
        }
    }

    /// Lets go of connections that do not answer.
    async fn beat(&mut self) {
        let clock = &self.shared.servers.clock;
        let beats = self.tracked.iter_mut().map(|(address, live)| async move {
            let mut pipeline = Pipeline::new();
            pipeline.add_command(redis::cmd("PING"));
            let alive = within(&**clock, SILENCE, live.send(&pipeline)).await;
            let alive = matches!(
                alive.and_then(Result::ok).as_deref(),
                Some([Answer::SimpleString(_) | Answer::Okay])
            );
            (!alive).then(|| address.clone())
        });
        let silent: Vec<String> = join_all(beats).await.into_iter().flatten().collect();
        if !silent.is_empty() {
            self.inbox.set_lost(true);
        }
        for address in silent {
            self.tracked.remove(&address);
        }
    }

    /// The servers that have slots now.
    async fn servers(&self) -> Result<Vec<Arc<Link>>> {
        if let Kind::Cluster(cluster) = &self.shared.servers.kind {
            let clock = &*self.shared.servers.clock;
            let refreshed = within(clock, SILENCE, cluster.refresh(None)).await;
            let refreshed = refreshed.unwrap_or_else(|| Err(late(Operation::Changes)));
            refreshed.map_err(|error| error.with_operation(Operation::Changes))?;
        }
        self.shared.servers.all(Operation::Changes).await
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
        let mut queue = inbox.queue.lock();
        assert_eq!(queue.changes.make_contiguous(), [Change::All, Change::Lost]);
        drop(queue);
        inbox.set_lost(false);
        assert_eq!(inbox.queue.lock().changes.make_contiguous(), [Change::All]);
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
