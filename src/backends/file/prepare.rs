//! Values as files, written and synced before anything is decided.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use super::core::{Core, Own};
use super::error::{failed, not_kept};
use super::fault;
use super::folder::Folder;
use super::intent::Written;
use crate::error::{Error, Result};
use crate::types::{Op, Value};

/// Threads that sync the values of one batch: a journaling file system takes their syncs together.
const SYNCERS: usize = 16;

/// A file in `temporary`, which goes away with it unless it was placed.
pub(super) struct Temporary<'a> {
    pub(super) folder: &'a Folder,
    pub(super) written: Written,
    placed: bool,
}

impl Temporary<'_> {
    /// It is placed, or an intent does that later.
    pub(super) fn keep(mut self) {
        self.placed = true;
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if !self.placed && !fault::dead() {
            // What stays behind is removed when the store is opened the next time.
            let _ = self.folder.remove(&self.written.name());
        }
    }
}

impl Core {
    /// Writes the values to files, many at a time if they are to be synced.
    pub(super) fn prepare<'a>(&self, ops: &[&Op], own: &'a Own) -> Result<Vec<Temporary<'a>>> {
        let puts: Vec<(&Bytes, &Value)> =
            ops.iter().filter_map(|op| Some((op.key(), op.value()?))).collect();
        let threads = puts.len().div_ceil(4).min(SYNCERS);
        if !self.sync || threads < 2 {
            return puts
                .into_iter()
                .map(|(key, value)| self.write_value(key, &value.bytes, own))
                .collect();
        }
        let (next, written) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        let work = || {
            while let at = next.fetch_add(1, Ordering::Relaxed)
                && let Some((key, value)) = puts.get(at)
            {
                let file = self.write_value(key, &value.bytes, own);
                if file.is_err() {
                    next.store(puts.len(), Ordering::Relaxed);
                }
                written.lock().push((at, file));
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..threads {
                // If there are no more threads, this one does it all.
                let _ = std::thread::Builder::new().spawn_scoped(scope, work);
            }
            work();
        });
        let mut written = written.into_inner();
        written.sort_by_key(|(at, _)| *at);
        written.into_iter().map(|(_, file)| file).collect()
    }

    fn write_value<'a>(&self, key: &Bytes, value: &Bytes, own: &'a Own) -> Result<Temporary<'a>> {
        let path = self.tree.layout.path(key);
        let told = |error: Error| path.told(error).with_key(key);
        let kept = {
            let _view = self.view.read();
            self.tree.kept(&path).map_err(told)?
        };
        let (id, crc) = (self.next_id(), crc32fast::hash(value));
        let written = Written { id, bytes: value.len() as u64, crc };
        let file = Temporary { folder: &own.temporary, written, placed: false };
        let created = own.temporary.create(&written.name(), value, kept.as_ref(), self.sync);
        created.map(|()| file).map_err(|error| {
            told(match kept {
                Some(_) if error.kind() == std::io::ErrorKind::PermissionDenied => not_kept(error),
                _ => failed("writing a value", error),
            })
        })
    }
}
