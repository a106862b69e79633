//! Which node of a cluster has which slots.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use futures_util::future::select_ok;
use parking_lot::Mutex;
use redis::{Client, Cmd, ConnectionAddr, ConnectionInfo, Pipeline, Value};

use super::connection::{Dial, Link, within};
use super::error::{lost, refused, said};
use crate::error::{Error, ErrorKind, Operation, Result};

pub(super) const SLOTS: usize = 16_384;

/// Which slot a key is in.
pub(super) fn slot_of(key: &[u8]) -> u16 {
    let tagged = || {
        let open = key.iter().position(|byte| *byte == b'{')?;
        let rest = key.get(open + 1..)?;
        let close = rest.iter().position(|byte| *byte == b'}')?;
        rest.get(..close).filter(|tag| !tag.is_empty())
    };
    crc16(tagged().unwrap_or(key)) % SLOTS as u16
}

/// CRC-16/XMODEM, as the specification of Redis Cluster has it.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc: u16, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    })
}

type Node = (String, u16);

/// One answer of the cluster.
struct Map {
    primaries: Vec<Arc<Link>>,
    /// For each slot, which of them has it.
    owners: Vec<Option<u16>>,
}

pub(super) struct Cluster {
    /// The nodes that the settings name.
    seeds: Vec<Arc<Link>>,
    dial: Dial,
    map: ArcSwapOption<Map>,
    /// By address, so that a node keeps its connection from one map to the next.
    links: Mutex<HashMap<Node, Arc<Link>>>,
    refreshing: tokio::sync::Mutex<()>,
    refreshed: AtomicU64,
    suspected: AtomicBool,
}

impl Cluster {
    pub(super) fn new(seeds: Vec<Client>, dial: Dial) -> Self {
        let seeds: Vec<_> =
            seeds.into_iter().map(|seed| Arc::new(Link::new(seed, dial.clone()))).collect();
        let links = seeds.iter().filter_map(|seed| Some((node(seed)?, Arc::clone(seed)))).collect();
        Self {
            seeds,
            dial,
            map: ArcSwapOption::empty(),
            links: Mutex::new(links),
            refreshing: tokio::sync::Mutex::default(),
            refreshed: AtomicU64::new(0),
            suspected: AtomicBool::new(true),
        }
    }

    /// The map may be old.
    pub(super) fn suspect(&self) {
        self.suspected.store(true, Ordering::Release);
    }

    /// The node that has a slot.
    pub(super) async fn owner(&self, slot: u16) -> Result<Arc<Link>> {
        let map = self.map().await?;
        let owner = map.owners.get(usize::from(slot)).copied().flatten();
        owner.and_then(|owner| map.primaries.get(usize::from(owner))).cloned().ok_or_else(|| {
            said(ErrorKind::Unavailable, "no node of the cluster has the slot of the key")
        })
    }

    /// The nodes that have slots, as the cluster says now.
    pub(super) async fn primaries_now(&self) -> Result<Vec<Arc<Link>>> {
        self.refresh(None).await?;
        self.primaries().await
    }

    pub(super) async fn primaries(&self) -> Result<Vec<Arc<Link>>> {
        Ok(self.map().await?.primaries.clone())
    }

    async fn map(&self) -> Result<Arc<Map>> {
        if self.suspected.load(Ordering::Acquire) {
            let refreshed = self.refresh(None).await;
            // An old map is better than none: the nodes correct it.
            if self.map.load().is_none() {
                refreshed?;
            }
        }
        self.map
            .load_full()
            .ok_or_else(|| said(ErrorKind::Unavailable, "the cluster is not known yet"))
    }

    /// Asks the nodes which slots they have, all at once, and takes the first answer. `not` is a node
    /// that just failed.
    pub(super) async fn refresh(&self, not: Option<&Arc<Link>>) -> Result<()> {
        let seen = self.refreshed.load(Ordering::Acquire);
        let _refreshing = self.refreshing.lock().await;
        if self.refreshed.load(Ordering::Acquire) != seen {
            return Ok(());
        }
        // Cleared before the question, so that a suspicion that comes meanwhile is not lost.
        self.suspected.store(false, Ordering::Release);
        let mut asked: Vec<Arc<Link>> =
            self.map.load().as_ref().map(|map| map.primaries.clone()).unwrap_or_default();
        for seed in &self.seeds {
            if !asked.iter().any(|link| Arc::ptr_eq(link, seed)) {
                asked.push(Arc::clone(seed));
            }
        }
        if asked.len() > 1 {
            asked.retain(|link| not.is_none_or(|not| !Arc::ptr_eq(link, not)));
        }
        let answers = asked.iter().map(|link| Box::pin(self.ask(link)));
        match select_ok(answers).await {
            Ok((map, _)) => {
                self.map.store(Some(Arc::new(map)));
                self.refreshed.fetch_add(1, Ordering::AcqRel);
                Ok(())
            }
            Err(error) => {
                self.suspect();
                Err(error)
            }
        }
    }

    async fn ask(&self, link: &Arc<Link>) -> Result<Map> {
        let asking = async {
            let mut live = link.live().await?;
            let mut pipeline = Pipeline::new();
            pipeline.add_command(redis::cmd("CLUSTER").arg("INFO").take());
            pipeline.add_command(redis::cmd("CLUSTER").arg("SLOTS").take());
            live.send(&pipeline).await.map_err(|error| {
                link.retire(&live);
                lost(error)
            })
        };
        let Some(answered) = within(&*self.dial.clock, self.dial.connect_timeout, asking).await
        else {
            return Err(said(ErrorKind::Unavailable, "no node of the cluster answers"));
        };
        let mut answered = answered?;
        // A node that was separated from the others says what was so before.
        if answered.first().is_some_and(is_failed) {
            return Err(said(
                ErrorKind::Unavailable,
                "the cluster does not serve all of its slots",
            ));
        }
        match answered.pop() {
            Some(Value::Array(ranges)) => self.understand(ranges, link).ok_or_else(|| {
                said(ErrorKind::Unavailable, "the cluster has no slots that are served")
            }),
            Some(Value::ServerError(_)) => Err(Error::config(
                "the server is not a node of a cluster; name it as `url` in place of `cluster`",
            )
            .with_layer("redis")),
            _ => Err(said(ErrorKind::Unavailable, "the cluster's answer is not understood")),
        }
    }

    /// The primaries that have no slots, to which some may be moving.
    pub(super) async fn without_slots(&self) -> Result<Vec<Arc<Link>>> {
        let map = self.map().await?;
        // Any node knows all.
        let asked = map.primaries.iter().map(|link| {
            Box::pin(async move {
                let mut live = link.live().await?;
                let mut pipeline = Pipeline::new();
                pipeline.add_command(shards());
                let answers = live.send(&pipeline).await.map_err(|error| {
                    link.retire(&live);
                    lost(error)
                })?;
                Ok::<_, Error>((answers, link))
            })
        });
        let ((answers, link), _) = select_ok(asked).await?;
        match answers.into_iter().next() {
            Some(Value::Array(shards)) => {
                let idle = shards.iter().filter_map(|shard| idle_primary(shard, link));
                Ok(idle.map(|node| self.link(node)).collect())
            }
            Some(Value::ServerError(error)) => Err(refused(Operation::Changes, &error)),
            _ => Err(said(ErrorKind::Unavailable, "the cluster's answer is not understood")),
        }
    }

    /// `[[first, last, [host, port, ...], replicas ...], ...]`
    fn understand(&self, ranges: Vec<Value>, asked: &Arc<Link>) -> Option<Map> {
        let mut map = Map { primaries: Vec::new(), owners: vec![None; SLOTS] };
        for range in ranges {
            let Value::Array(parts) = range else { continue };
            let mut parts = parts.into_iter();
            let (Some(Value::Int(first)), Some(Value::Int(last)), Some(Value::Array(primary))) =
                (parts.next(), parts.next(), parts.next())
            else {
                continue;
            };
            let (Some(host), Some(Value::Int(port))) = (primary.first(), primary.get(1)) else {
                continue;
            };
            let host = host_of(host, asked)?;
            let Ok(port) = u16::try_from(*port) else { continue };
            let link = self.link((host, port));
            let known = map.primaries.iter().position(|known| Arc::ptr_eq(known, &link));
            let at = known.unwrap_or_else(|| {
                map.primaries.push(link);
                map.primaries.len() - 1
            });
            let (Ok(first), Ok(last)) = (usize::try_from(first), usize::try_from(last)) else {
                continue;
            };
            if let Some(owners) = map.owners.get_mut(first..last.saturating_add(1).min(SLOTS)) {
                owners.fill(u16::try_from(at).ok());
            }
        }
        if map.primaries.is_empty() {
            return None;
        }
        let kept = |link: &Arc<Link>| {
            map.primaries.iter().chain(&self.seeds).any(|kept| Arc::ptr_eq(kept, link))
        };
        self.links.lock().retain(|_, link| kept(link));
        Some(map)
    }

    fn link(&self, node: Node) -> Arc<Link> {
        let mut links = self.links.lock();
        if let Some(link) = links.get(&node) {
            return Arc::clone(link);
        }
        let link = Arc::new(Link::new(self.client_for(&node), self.dial.clone()));
        links.insert(node, Arc::clone(&link));
        link
    }

    /// The node that a redirection names as `host:port`; without a host, it is that of the node that said so.
    pub(super) fn link_to(&self, target: &str, from: &Arc<Link>) -> Arc<Link> {
        let Some((host, port)) = target.rsplit_once(':') else { return Arc::clone(from) };
        let host = match (host, node(from)) {
            ("" | "?", Some((host, _))) => host,
            (host, _) => host.trim_matches(['[', ']']).to_owned(),
        };
        port.parse().map_or_else(|_| Arc::clone(from), |port| self.link((host, port)))
    }

    /// As the first seed, at another address.
    fn client_for(&self, (host, port): &Node) -> Client {
        // There is a seed: a cluster is configured by naming at least one.
        #[expect(clippy::expect_used, reason = "see above")]
        let seed = self.seeds.first().expect("a cluster has a seed").client();
        let info: ConnectionInfo = seed.get_connection_info().clone();
        let addr = match info.addr() {
            ConnectionAddr::TcpTls { insecure, tls_params, .. } => ConnectionAddr::TcpTls {
                host: host.clone(),
                port: *port,
                insecure: *insecure,
                tls_params: tls_params.clone(),
            },
            _ => ConnectionAddr::Tcp(host.clone(), *port),
        };
        // Only an address that does not parse is refused, and this one is parsed.
        #[expect(clippy::expect_used, reason = "see above")]
        Client::open(info.set_addr(addr)).expect("an address in parts")
    }

    pub(super) fn close(&self) {
        for link in self.links.lock().values() {
            link.close();
        }
    }
}

/// Whether a node says of the cluster that it is down, as far as it may be asked.
fn is_failed(info: &Value) -> bool {
    let says = |text: &str| text.lines().any(|line| line.trim_end() == "cluster_state:fail");
    match info {
        Value::BulkString(text) => std::str::from_utf8(text).is_ok_and(says),
        Value::VerbatimString { text, .. } | Value::SimpleString(text) => says(text),
        _ => false,
    }
}

/// The question for every shard, with or without slots.
pub(super) fn shards() -> Cmd {
    redis::cmd("CLUSTER").arg("SHARDS").take()
}

/// The primary of a shard that has no slots, unless it is down.
fn idle_primary(shard: &Value, asked: &Link) -> Option<Node> {
    let (Some(Value::Array(slots)), Some(Value::Array(nodes))) =
        (field(shard, "slots"), field(shard, "nodes"))
    else {
        return None;
    };
    let is = |node: &Value, name: &str, wanted: &str| matches!(field(node, name), Some(Value::BulkString(text)) if text == wanted.as_bytes());
    let primary = |node: &&Value| is(node, "role", "master") && is(node, "health", "online");
    let primary = nodes.iter().find(primary).filter(|_| slots.is_empty())?;
    let tls = matches!(asked.client().get_connection_info().addr(), ConnectionAddr::TcpTls { .. });
    let port = field(primary, if tls { "tls-port" } else { "port" })?;
    let Value::Int(port) = port else { return None };
    let host = host_of(field(primary, "endpoint")?, asked)?;
    Some((host, u16::try_from(*port).ok()?))
}

fn field<'a>(map: &'a Value, name: &str) -> Option<&'a Value> {
    let Value::Map(fields) = map else { return None };
    let named = |field: &Value| match field {
        Value::BulkString(text) => text == name.as_bytes(),
        Value::SimpleString(text) => text == name,
        _ => false,
    };
    fields.iter().find(|(field, _)| named(field)).map(|(_, value)| value)
}

/// The host as a node says it. An empty one is that of the node that was asked.
fn host_of(said: &Value, asked: &Link) -> Option<String> {
    match said {
        Value::BulkString(host) if !host.is_empty() && host != b"?" => {
            Some(String::from_utf8_lossy(host).into_owned())
        }
        _ => Some(node(asked)?.0),
    }
}

fn node(link: &Link) -> Option<Node> {
    match link.client().get_connection_info().addr() {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
            Some((host.clone(), *port))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        // As `CLUSTER KEYSLOT` answers.
        assert_eq!(slot_of(b"foo"), 12182);
        assert_eq!(slot_of(b"{user1000}.following"), slot_of(b"user1000"));
        assert_eq!(slot_of(b"foo{}{bar}"), crc16(b"foo{}{bar}") % 16384);
        assert_eq!(slot_of(b"foo{{bar}}zap"), slot_of(b"{bar"));
    }
}
