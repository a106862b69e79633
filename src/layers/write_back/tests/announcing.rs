//! Foreign changes that the store below reports, over data that are dirty.

use futures_util::StreamExt;
use tokio::sync::broadcast;

use super::*;
use crate::forward;
use crate::store::{Change, Changes};

/// Memory that reports what it is told to.
struct Announcing {
    memory: Arc<Memory>,
    told: broadcast::Sender<Change>,
}

impl Read for Announcing {
    forward!(self => self.memory; get, get_many, scan);
}

#[async_trait::async_trait]
impl Store for Announcing {
    async fn changes(&self) -> Result<Changes> {
        let told = self.told.subscribe();
        let changes = futures_util::stream::unfold(told, |mut told| async {
            Some((told.recv().await.ok()?, told))
        });
        Ok(changes.boxed())
    }

    forward!(self => self.memory; write, write_group, ingest, invalidate, inspect, snapshot, flush, compact, usage, count, close, profile, identity);
}

#[tokio::test]
async fn an_announced_change_of_a_dirty_key_is_passed_on_and_what_is_dirty_stays() {
    let memory = Arc::new(Memory::new());
    let (told, _) = broadcast::channel(8);
    let below = Arc::new(Announcing { memory: Arc::clone(&memory), told: told.clone() });
    let config = WriteBackConfig { ack: Ack::Memory, ..WriteBackConfig::default() };
    let layer = WriteBackLayer::open(&config, &Context::default()).await.unwrap();
    let (store, mut flusher) = layer.pair(below).await.unwrap();
    let mut changes = store.changes().await.unwrap();
    drop(store.put("dirty", "mine").await.unwrap());
    let foreign = async |keys: &[&'static str]| {
        for key in keys {
            drop(memory.put(*key, "foreign").await.unwrap());
        }
        let keys: Vec<_> = keys.iter().map(|key| bytes::Bytes::from(*key)).collect();
        told.send(Change::Keys(keys)).unwrap();
    };
    foreign(&["dirty", "clean"]).await;
    let told_of = Change::Keys(vec!["dirty".into(), "clean".into()]);
    assert_eq!(changes.next().await, Some(told_of));
    let get = async |key: &str| store.get(key.as_bytes()).await.unwrap();
    assert_eq!(get("dirty").await, Some("mine".into()));
    assert_eq!(get("clean").await, Some("foreign".into()));
    assert_eq!(flusher.step().await, Step::Flushed);
    assert_eq!(memory.get(b"dirty").await.unwrap(), Some("mine".into()), "the flush replaces it");
    // What is reported once it is clean counts.
    foreign(&["dirty"]).await;
    assert_eq!(changes.next().await, Some(Change::Keys(vec!["dirty".into()])));
    assert_eq!(get("dirty").await, Some("foreign".into()));
    told.send(Change::Lost).unwrap();
    assert_eq!(changes.next().await, Some(Change::Lost), "as it is");
}
