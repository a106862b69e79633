//! Scans where there is no index, as none is kept or none may be made: the keys are gathered and sorted here.

use bytes::Bytes;

use super::Shared;
use super::command::Run;
use super::error::said;
use super::{index, walk};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::types::{Entry, Order, Scan, Value};

/// Keys that are held at most, in bytes, with what each takes in addition to its bytes.
const MOST_BYTES: usize = 256 << 20;
const OVERHEAD: usize = 64;
/// Values that are asked for at a time.
const AT_ONCE: usize = 64;

/// The keys of a scan that are still to be read, the next one last.
pub(super) struct Keys(Vec<Bytes>);

impl Keys {
    /// Gathers the keys of the range. Gives up where they are too many.
    pub(super) async fn of(shared: &Shared, scan: &Scan, whole: bool) -> Result<Self> {
        let (mut keys, mut bytes) = (Vec::new(), 0);
        let take = |key: &[u8]| {
            if scan.contains(key) {
                bytes += key.len() + OVERHEAD;
                keys.push(Bytes::copy_from_slice(key));
            }
            if bytes > MOST_BYTES { Err(too_many(shared)) } else { Ok(()) }
        };
        let foreigners = match shared.sorts {
            true => walk::list(shared, take).await?,
            false => index::list(shared, take).await?.foreigners,
        };
        if whole {
            index::check(shared, foreigners)?;
        }
        keys.sort_unstable();
        // `SCAN` may give a key twice.
        keys.dedup();
        if scan.order == Order::Forward {
            keys.reverse();
        }
        Ok(Self(keys))
    }

    /// The next page.
    pub(super) async fn page(&mut self, shared: &Shared, scan: &Scan) -> Result<Run> {
        let (mut entries, mut bytes, mut last) = (Vec::new(), 0, Bytes::new());
        let most = scan.next_page_entries();
        loop {
            let next = AT_ONCE.min(most - entries.len()).min(self.0.len());
            if next == 0 {
                break;
            }
            let mut keys = self.0.split_off(self.0.len() - next);
            keys.reverse();
            let values = match scan.keys_only {
                true => vec![Some(Value::default()); keys.len()],
                false => shared.get_many(&keys).await?,
            };
            let mut read = keys.into_iter().zip(values);
            for (key, value) in read.by_ref() {
                last = key.clone();
                // None: it is gone.
                let Some(value) = value else { continue };
                bytes += key.len() + value.bytes.len();
                entries.push(Entry { key, value });
                if bytes >= scan.page_bytes {
                    break;
                }
            }
            // They are read again with the next page.
            self.0.extend(read.rev().map(|(key, _)| key));
            // A page has an entry, also where it may have no bytes.
            if bytes >= scan.page_bytes && !entries.is_empty() {
                break;
            }
        }
        Ok(Run { entries, last, ended: self.0.is_empty() })
    }
}

fn too_many(shared: &Shared) -> Error {
    let message = match shared.sorts {
        true => {
            "there are too many keys to sort them in memory (`scan: sorted`); scan a part, or keep an index (`index: true`)"
        }
        false => {
            "there is no index, a command that only reads makes none, and there are too many keys to sort them in memory; scan a part, or have the index made by a program that opens the store to write (`tierstack import - < /dev/null` does nothing else)"
        }
    };
    said(ErrorKind::Capacity, message).with_operation(Operation::Scan)
}
