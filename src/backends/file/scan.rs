//! Scans: the folders are visited in the order of the keys.
//!
//! A folder's names have no order on the disk, so it is listed as a whole, sorted, and kept for the pages
//! that follow, up to [`MOST_BYTES`]: of a larger folder the nearest names are kept, and it is listed again
//! for those behind them. Between pages no file and no lock is held. A page that finds that a folder got
//! new names since it was listed, lists it again: so it holds a batch wholly or not at all. A scan of keys only
//! opens no file.

use std::cmp::Ordering;
use std::io;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::unfold;

use super::blocking::offload;
use super::core::Core;
use super::entry_files::{Growth, Tree, Way};
use super::error::{failed, foreign, no_key};
use super::folder::{Folder, Spot, What};
use super::names::{At, HOME, Kind};
use crate::error::{Operation, Result};
use crate::store::Pages;
use crate::types::{Entry, Limits, Order, Page, Scan, Value};

/// Bytes of names that are kept of one folder.
pub(super) const MOST_BYTES: usize = 8 << 20;
/// Folders that a page keeps open at once.
const MOST_OPEN: usize = 16;
/// What a name takes in addition to its bytes.
const OVERHEAD: usize = 48;

pub(super) fn pages(core: &Arc<Core>, scan: Scan) -> Pages<'static> {
    let start = Some((Arc::clone(core), Walk::default(), scan));
    unfold(start, |state| async {
        let (core, mut walk, mut scan) = state?;
        if scan.is_empty() {
            // A closed store says so also where nothing is asked for.
            return core.check_open().err().map(|error| (Err(error), None));
        }
        let reading = Arc::clone(&core);
        let read = offload(move || {
            let page = reading.reading(|tree| walk.page(tree, &scan))?;
            if let Some(last) = page.entries.last() {
                scan.resume_after(last.key.clone());
                scan.consume(page.len());
            }
            Ok((page, walk, scan))
        });
        match read.await {
            Ok((page, ..)) if page.is_empty() => None,
            Ok((page, walk, scan)) => {
                let more = (!walk.done && !scan.is_empty()).then_some((core, walk, scan));
                Some((Ok(page), more))
            }
            Err(error) => {
                Some((Err(error.with_operation(Operation::Scan).with_layer("file")), None))
            }
        }
    })
    .boxed()
}

/// A name in a folder: the bytes that it adds to a key, the slash behind a folder among them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Item {
    bytes: Box<[u8]>,
    kind: Kind,
    /// Why it is no entry. Its bytes are then those of the name.
    wrong: Option<Wrong>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Wrong {
    /// A symbolic link, a device, a socket, a pipe.
    Foreign,
    /// The name stands for no key.
    Name,
}

impl Item {
    fn order(&self, other: &Self, order: Order) -> Ordering {
        let forward = || self.cmp(other);
        match order {
            Order::Forward => forward(),
            Order::Reverse => forward().reverse(),
        }
    }

    fn spelt(&self) -> &[u8] {
        match self.kind {
            Kind::Folder => self.bytes.strip_suffix(b"/").unwrap_or(&self.bytes),
            Kind::File | Kind::Beside | Kind::Part => &self.bytes,
        }
    }

    /// Whether a key of the range can be behind it.
    fn is_within(&self, prefix: &[u8], scan: &Scan) -> bool {
        let key = [prefix, &self.bytes].concat();
        if self.wrong.is_some() {
            // Where it is, or where it is in the way of a folder in which the range begins.
            return scan.contains(&key) || begins_in(&[&*key, b"/"].concat(), scan);
        }
        if self.kind == Kind::File {
            return scan.contains(&key);
        }
        // Every key there begins with these bytes, and is longer.
        let above = match &scan.from {
            Bound::Included(from) | Bound::Excluded(from) => {
                key.as_slice() >= from.as_ref() || begins_in(&key, scan)
            }
            Bound::Unbounded => true,
        };
        above
            && match &scan.to {
                Bound::Included(to) => key.as_slice() < to.as_ref(),
                Bound::Excluded(to) => first_in(&key).as_slice() < to.as_ref(),
                Bound::Unbounded => true,
            }
    }
}

/// The first key that begins with these bytes and is longer.
fn first_in(bytes: &[u8]) -> Vec<u8> {
    [bytes, &[0]].concat()
}

/// Whether the range begins among the keys that begin with these bytes.
fn begins_in(bytes: &[u8], scan: &Scan) -> bool {
    match &scan.from {
        Bound::Included(from) => from.starts_with(bytes),
        Bound::Excluded(from) => from.starts_with(bytes) && *from != last_in(bytes),
        Bound::Unbounded => false,
    }
}

/// The last key that begins with these bytes.
fn last_in(bytes: &[u8]) -> Vec<u8> {
    let mut last = bytes.to_vec();
    last.resize(Limits::MAX_KEY_BYTES.max(bytes.len()), 0xff);
    last
}

/// The key from which on a scan goes on behind a folder.
fn behind_folder(bytes: &[u8], scan: &Scan) -> Vec<u8> {
    match scan.order {
        Order::Forward => last_in(bytes),
        Order::Reverse => first_in(bytes),
    }
}

/// The key from which on a scan goes on behind what is no entry.
fn behind_wrong(key: Vec<u8>, scan: &Scan) -> Vec<u8> {
    if scan.contains(&key) {
        return key;
    }
    let folder = [&*key, b"/"].concat();
    match (&scan.from, &scan.to, scan.order) {
        (_, _, Order::Forward) if begins_in(&folder, scan) => last_in(&folder),
        // Keys of a part may have come before it that are behind it.
        (Bound::Included(from) | Bound::Excluded(from), _, Order::Forward) => from.to_vec(),
        (Bound::Included(from) | Bound::Excluded(from), _, _) if begins_in(&folder, scan) => {
            from.to_vec()
        }
        (_, Bound::Included(to) | Bound::Excluded(to), Order::Reverse) => to.to_vec(),
        _ => key,
    }
}

/// A folder that is being visited.
#[derive(Debug, Default)]
struct Visit {
    name: Vec<u8>,
    at: At,
    /// What is still to be visited, the next one last.
    items: Vec<Item>,
    listed: bool,
    /// Whether it was listed for this page, so that nothing can have vanished since.
    fresh: bool,
    /// Whether nothing is behind the items.
    whole: bool,
    /// The last item that is done with.
    after: Option<Item>,
    /// The folder in this one that is being visited.
    current: Option<Item>,
    slot: usize,
    count: u64,
}

/// How far a scan is.
#[derive(Debug, Default)]
pub(super) struct Walk {
    visits: Vec<Visit>,
    /// The bytes with which all keys of the last visit begin.
    prefix: Vec<u8>,
    begun: bool,
    done: bool,
}

impl Walk {
    /// The next page; empty if there are no more entries. The caller ensures that nothing is written
    /// meanwhile.
    pub(super) fn page(&mut self, tree: &Tree, scan: &Scan) -> Result<Page> {
        if !self.begun {
            self.begun = true;
            self.visits.push(Visit { slot: Growth::slot(&[]), ..Visit::default() });
        }
        self.forget_outdated(tree);
        self.visits.iter_mut().for_each(|visit| visit.fresh = false);
        let (mut page, mut bytes) = (Page::default(), 0);
        // The innermost folders, so that coming back to one does not begin at the root.
        let mut open: Vec<Spot<'_>> = Vec::new();
        while !self.visits.is_empty() {
            if open.is_empty() {
                match tree.enter(&self.way())? {
                    Some(folder) => open.push(folder),
                    None => {
                        self.leave();
                        continue;
                    }
                }
            }
            let Some(folder) = open.last() else { break };
            let Some(visit) = self.visits.last_mut() else { break };
            if !visit.listed {
                let listed = visit.list(tree, folder, &self.prefix, scan);
                listed.map_err(|error| error.with_name(self.name(b"")))?;
            }
            let Some(visit) = self.visits.last_mut() else { break };
            let Some(item) = visit.items.pop() else {
                if visit.whole {
                    self.leave();
                    open.pop();
                } else {
                    visit.listed = false;
                }
                continue;
            };
            let key = Bytes::from([&self.prefix, &*item.bytes].concat());
            if let Some(wrong) = item.wrong {
                if !page.is_empty() {
                    visit.items.push(item);
                    return Ok(page);
                }
                let error = if wrong == Wrong::Foreign { foreign() } else { no_key() };
                let place = behind_wrong(key.to_vec(), scan);
                return Err(error.with_key(&place).with_name(self.name(&item.bytes)));
            }
            let name = tree.layout.name(item.spelt(), item.kind, visit.at);
            if item.kind == Kind::File {
                let read = match visit.value(tree, folder, &name, scan.keys_only) {
                    Ok(read) => read,
                    // What was read is given first, so that a reader can go on behind the error.
                    Err(_) if !page.is_empty() => {
                        visit.items.push(item);
                        return Ok(page);
                    }
                    Err(error) => return Err(error.with_key(&key).with_name(self.name(&name))),
                };
                visit.after = Some(item);
                // It may have vanished since the folder was listed.
                if let Some(value) = read {
                    bytes += key.len() + value.len();
                    page.entries.push(Entry { key, value: Value::new(value) });
                    if page.len() >= scan.next_page_entries() || bytes >= scan.page_bytes {
                        return Ok(page);
                    }
                }
                continue;
            }
            let child = match folder.child(&name) {
                Ok(child) => child,
                Err(_) if !page.is_empty() => {
                    visit.items.push(item);
                    return Ok(page);
                }
                Err(error) => {
                    let error = failed("opening a folder", error);
                    let place = behind_folder(&key, scan);
                    return Err(error.with_key(&place).with_name(self.name(&name)));
                }
            };
            match child {
                Some(child) => {
                    self.enter(item, name);
                    if open.len() >= MOST_OPEN {
                        open.remove(0);
                    }
                    open.push(Spot::Below(child));
                }
                None => visit.after = Some(item),
            }
        }
        self.done = true;
        Ok(page)
    }

    /// Drops what was listed of folders that got new names since.
    fn forget_outdated(&mut self, tree: &Tree) {
        let outdated = |visit: &Visit| visit.listed && tree.growth.count(visit.slot) != visit.count;
        if let Some(first) = self.visits.iter().position(outdated) {
            while self.visits.len() > first + 1 {
                self.visits.pop();
            }
            if let Some(visit) = self.visits.last_mut() {
                visit.listed = false;
                visit.items = Vec::new();
                // It is visited again, for what is behind the last key.
                visit.current = None;
                self.prefix.truncate(visit.at.bytes);
            }
        }
    }

    fn enter(&mut self, item: Item, name: Vec<u8>) {
        let Some(visit) = self.visits.last_mut() else { return };
        let at = visit.at.inside(item.spelt(), item.kind);
        self.prefix.extend_from_slice(&item.bytes);
        visit.current = Some(item);
        let mut way = self.way();
        way.push(name.clone());
        let slot = Growth::slot(&way);
        self.visits.push(Visit { name, at, slot, ..Visit::default() });
    }

    /// A name in the folder that is being visited, with those that lead to it.
    fn name(&self, name: &[u8]) -> Vec<u8> {
        let mut way = self.way();
        way.push(name.to_vec());
        way.join(&b'/')
    }

    /// The names that lead to the folder that is being visited.
    fn way(&self) -> Way {
        self.visits.iter().skip(1).map(|visit| visit.name.clone()).collect()
    }

    fn leave(&mut self) {
        self.visits.pop();
        if let Some(above) = self.visits.last_mut() {
            self.prefix.truncate(above.at.bytes);
            if let Some(done) = above.current.take() {
                above.after = Some(done);
            }
        }
    }
}

impl Visit {
    /// Lists what is behind the last item, as much of it as may be kept.
    fn list(&mut self, tree: &Tree, folder: &Folder, prefix: &[u8], scan: &Scan) -> Result<()> {
        self.count = tree.growth.count(self.slot);
        (self.listed, self.fresh, self.whole) = (true, true, true);
        let (mut items, mut bytes) = (Vec::<Item>::new(), 0);
        // Once some were dropped: the last of those that were kept.
        let mut edge: Option<Item> = None;
        folder
            .list(|name, what| {
                if prefix.is_empty() && name == HOME {
                    return Ok(());
                }
                let Some(item) = self.item(tree, name, what) else { return Ok(()) };
                let behind = |of: &Item| item.order(of, scan.order) == Ordering::Greater;
                if self.after.as_ref().is_some_and(|after| !behind(after))
                    || edge.as_ref().is_some_and(behind)
                    || !item.is_within(prefix, scan)
                {
                    return Ok(());
                }
                bytes += item.bytes.len() + OVERHEAD;
                items.push(item);
                if bytes > MOST_BYTES {
                    edge = halve(&mut items, &mut bytes, scan.order);
                    self.whole = false;
                }
                Ok::<_, io::Error>(())
            })
            .map_err(|error| failed("listing a folder", error))?;
        // The next one last, and a file next to a folder once.
        items.sort_unstable_by(|a, b| b.order(a, scan.order));
        items.dedup();
        self.items = items;
        Ok(())
    }

    /// The value of an entry that was listed; for a scan of keys only, an empty one in its place. `None`: it has
    /// vanished.
    fn value(
        &self,
        tree: &Tree,
        folder: &Folder,
        name: &[u8],
        keys_only: bool,
    ) -> Result<Option<Bytes>> {
        if !keys_only {
            return tree.read(folder, name);
        }
        let there = self.fresh || tree.is_there(folder, name)?;
        Ok(there.then(Bytes::new))
    }

    /// What a name stands for. `None`: for nothing that a scan heeds.
    fn item(&self, tree: &Tree, name: &[u8], what: What) -> Option<Item> {
        let known = match what {
            What::Missing => return None,
            What::Other => Err(Wrong::Foreign),
            What::File => tree.layout.parse(name, false, self.at).ok_or(Wrong::Name),
            What::Folder => tree.layout.parse(name, true, self.at).ok_or(Wrong::Name),
        };
        let (bytes, kind, wrong) = match known {
            Ok((bytes, Kind::Folder)) => ([&*bytes, b"/"].concat(), Kind::Folder, None),
            Ok((bytes, Kind::Part)) => (bytes, Kind::Part, None),
            Ok((bytes, Kind::File | Kind::Beside)) => (bytes, Kind::File, None),
            Err(wrong) if tree.strict => (name.to_vec(), Kind::File, Some(wrong)),
            Err(_) => return None,
        };
        Some(Item { bytes: bytes.into(), kind, wrong })
    }
}

/// Keeps the half that comes first, and gives the last of it.
fn halve(items: &mut Vec<Item>, bytes: &mut usize, order: Order) -> Option<Item> {
    items.sort_unstable_by(|a, b| a.order(b, order));
    items.truncate((items.len() / 2).max(1));
    *bytes = items.iter().map(|item| item.bytes.len() + OVERHEAD).sum();
    items.last().cloned()
}
