//! A disk in memory that keeps after a power cut what it must, and of the rest whatever the seed says.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use super::rng::Rng;
use crate::journal::disk::{Disk, DiskFile};

/// What a call does in place of its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The process ends in the middle of it.
    Crash,
    /// It fails.
    Io,
    /// It fails as a full disk does.
    Full,
}

/// How the process before ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The system has all that it was given.
    Kill,
    /// What was not synced is there or not, in any mixture.
    PowerCut,
}

/// The parts of a write that survive each on their own.
const SECTOR: u64 = 512;

#[derive(Clone, Debug)]
enum Change {
    Write(u64, Vec<u8>),
    Length(u64),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(offset, written) => {
                let (from, to) = (*offset as usize, *offset as usize + written.len());
                if bytes.len() < to {
                    bytes.resize(to, 0);
                }
                bytes[from..to].copy_from_slice(written);
            }
            Self::Length(length) => bytes.resize(*length as usize, 0),
        }
    }

    /// Applies what survives of it. `stale`: what lay on the disk before where the file is new.
    fn survive(&self, bytes: &mut Vec<u8>, rng: &mut Rng, stale: &[u8]) {
        let Self::Write(offset, written) = self else {
            if rng.percent(50) {
                self.apply(bytes);
            }
            return;
        };
        let mut from = 0;
        while from < written.len() {
            let at = offset + from as u64;
            let to = written.len().min(from + (SECTOR - at % SECTOR) as usize);
            let piece = &written[from..to];
            let kept = match rng.below(10) {
                0..5 => piece.len(),
                5 => rng.below(piece.len() as u64 + 1) as usize,
                _ => 0,
            };
            if kept > 0 {
                Self::Write(at, piece[..kept].to_vec()).apply(bytes);
            } else if rng.percent(20) && stale.len() >= at as usize + piece.len() {
                Self::Write(at, stale[at as usize..][..piece.len()].to_vec()).apply(bytes);
            }
            from = to;
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Inode {
    /// As processes see it.
    seen: Vec<u8>,
    /// After a power cut.
    kept: Vec<u8>,
    /// What may be lost.
    unsynced: Vec<Change>,
    /// A write or a sync of it failed in this process.
    failed: bool,
}

#[derive(Clone, Debug)]
enum Naming {
    Set(String, usize),
    Removed(String),
    Moved(String, String, usize),
}

impl Naming {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Set(name, inode) => drop(names.insert(name.clone(), *inode)),
            Self::Removed(name) => drop(names.remove(name)),
            Self::Moved(from, to, inode) => {
                names.remove(from);
                names.insert(to.clone(), *inode);
            }
        }
    }
}

struct Inner {
    inodes: Vec<Inode>,
    seen: BTreeMap<String, usize>,
    kept: BTreeMap<String, usize>,
    unsynced: Vec<Naming>,
    rng: Rng,
    calls: u64,
    plan: Option<(u64, Fault)>,
    fired: Option<Fault>,
    dead: bool,
    /// Calls that change something.
    changes: u64,
    syncs: u64,
    room: u64,
    /// What no caller may do.
    wrong: Vec<String>,
}

type Hook = Box<dyn FnMut() + Send>;

/// The disk. Its clones are the same disk.
#[derive(Clone)]
pub(crate) struct Faulty {
    inner: Arc<Mutex<Inner>>,
    /// Called during each sync of a file.
    hook: Arc<Mutex<Option<Hook>>>,
}

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Faulty")
    }
}

impl Inner {
    /// Counts a call. `Some`: it is to fail in this way.
    fn call(&mut self, changes: bool) -> Option<Fault> {
        if self.dead {
            return Some(Fault::Crash);
        }
        self.calls += 1;
        self.changes += u64::from(changes);
        let (at, fault) = self.plan?;
        if at != self.calls {
            return None;
        }
        self.plan = None;
        self.fired = Some(fault);
        self.dead = fault == Fault::Crash;
        Some(fault)
    }

    fn used(&self) -> u64 {
        let named: BTreeSet<_> = self.seen.values().collect();
        named.into_iter().map(|inode| self.inodes[*inode].seen.len() as u64).sum()
    }

    fn name(&mut self, naming: Naming) {
        naming.apply(&mut self.seen);
        self.unsynced.push(naming);
    }

    fn find(&self, name: &str) -> io::Result<usize> {
        self.seen.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// The system drops what it could not write, and keeps showing it.
    fn lose(&mut self, inode: usize) {
        let Self { inodes, rng, .. } = self;
        let Inode { kept, unsynced, failed, .. } = &mut inodes[inode];
        for change in unsynced.drain(..) {
            change.survive(kept, rng, &[]);
        }
        *failed = true;
    }

    fn power_cut(&mut self) {
        let all: Vec<Vec<u8>> = self.inodes.iter().map(|inode| inode.seen.clone()).collect();
        let Self { inodes, rng, unsynced, kept, seen, .. } = self;
        for inode in inodes {
            let stale = &all[rng.below(all.len() as u64) as usize];
            for change in std::mem::take(&mut inode.unsynced) {
                change.survive(&mut inode.kept, rng, stale);
            }
            inode.seen = inode.kept.clone();
        }
        for naming in unsynced.drain(..) {
            if rng.percent(50) {
                naming.apply(kept);
            }
        }
        *seen = kept.clone();
    }
}

fn failure(fault: Fault) -> io::Error {
    match fault {
        Fault::Crash => io::Error::other("the process ended here"),
        Fault::Io => io::Error::other("input/output error"),
        Fault::Full => io::ErrorKind::StorageFull.into(),
    }
}

impl Faulty {
    pub(crate) fn new(seed: u64) -> Self {
        let inner = Inner {
            inodes: Vec::new(),
            seen: BTreeMap::new(),
            kept: BTreeMap::new(),
            unsynced: Vec::new(),
            rng: Rng(seed),
            calls: 0,
            plan: None,
            fired: None,
            dead: false,
            changes: 0,
            syncs: 0,
            room: u64::MAX,
            wrong: Vec::new(),
        };
        Self { inner: Arc::new(Mutex::new(inner)), hook: Arc::default() }
    }

    /// Lets one call go wrong, after so many that go well.
    pub(crate) fn plan(&self, calls: u64, fault: Fault) {
        let mut inner = self.inner.lock();
        inner.plan = Some((inner.calls + calls + 1, fault));
    }

    pub(crate) fn set_room(&self, room: u64) {
        self.inner.lock().room = room;
    }

    pub(crate) fn on_sync(&self, hook: Option<Hook>) {
        *self.hook.lock() = hook;
    }

    /// What went wrong since the last start.
    pub(crate) fn fired(&self) -> Option<Fault> {
        self.inner.lock().fired
    }

    pub(crate) fn changes(&self) -> u64 {
        self.inner.lock().changes
    }

    pub(crate) fn syncs(&self) -> u64 {
        self.inner.lock().syncs
    }

    pub(crate) fn wrong(&self) -> Vec<String> {
        self.inner.lock().wrong.clone()
    }

    /// What the next process finds.
    pub(crate) fn restart(&self, end: End) {
        let mut inner = self.inner.lock();
        (inner.dead, inner.plan, inner.fired) = (false, None, None);
        inner.inodes.iter_mut().for_each(|inode| inode.failed = false);
        if end == End::PowerCut {
            inner.power_cut();
        }
    }

    /// Whether a power cut would change which segments there are.
    pub(crate) fn names_are_kept(&self) -> bool {
        let inner = self.inner.lock();
        let segments = |names: &BTreeMap<String, usize>| -> Vec<(String, usize)> {
            let named = names.iter().filter(|(name, _)| !name.ends_with(".new"));
            named.map(|(name, inode)| (name.clone(), *inode)).collect()
        };
        segments(&inner.seen) == segments(&inner.kept)
    }

    pub(crate) fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let inner = self.inner.lock();
        inner.seen.iter().map(|(name, at)| (name.clone(), inner.inodes[*at].seen.clone())).collect()
    }

    /// Puts a file there, durably.
    pub(crate) fn put(&self, name: &str, bytes: &[u8]) {
        let mut inner = self.inner.lock();
        let inode = inner.inodes.len();
        inner.inodes.push(Inode { seen: bytes.to_vec(), kept: bytes.to_vec(), ..Inode::default() });
        inner.seen.insert(name.to_owned(), inode);
        inner.kept.insert(name.to_owned(), inode);
    }

    pub(crate) fn delete(&self, name: &str) {
        let mut inner = self.inner.lock();
        inner.seen.remove(name);
        inner.kept.remove(name);
    }
}

impl Disk for Faulty {
    fn names(&self) -> io::Result<Vec<String>> {
        let mut inner = self.inner.lock();
        match inner.call(false) {
            Some(fault) => Err(failure(fault)),
            None => Ok(inner.seen.keys().cloned().collect()),
        }
    }

    fn create(&self, name: &str, room: u64) -> io::Result<Arc<dyn DiskFile>> {
        let mut inner = self.inner.lock();
        if inner.dead {
            return Err(failure(Fault::Crash));
        }
        let fault = inner.call(true);
        if let Some(fault @ (Fault::Io | Fault::Full)) = fault {
            return Err(failure(fault));
        }
        if fault.is_none() && inner.used() + room > inner.room {
            return Err(failure(Fault::Full));
        }
        let inode = inner.inodes.len();
        let change = Change::Length(room);
        let mut new = Inode { unsynced: vec![change.clone()], ..Inode::default() };
        change.apply(&mut new.seen);
        inner.inodes.push(new);
        inner.name(Naming::Set(name.to_owned(), inode));
        match fault {
            None => Ok(Arc::new(FaultyFile { disk: self.clone(), inode })),
            Some(fault) => Err(failure(fault)),
        }
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut inner = self.inner.lock();
        match inner.call(false) {
            Some(fault) => Err(failure(fault)),
            None => Ok(Arc::new(FaultyFile { disk: self.clone(), inode: inner.find(name)? })),
        }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut inner = self.inner.lock();
        let inode = inner.find(from)?;
        match inner.call(true) {
            Some(fault) => Err(failure(fault)),
            None => {
                inner.name(Naming::Moved(from.to_owned(), to.to_owned(), inode));
                Ok(())
            }
        }
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut inner = self.inner.lock();
        inner.find(name)?;
        match inner.call(true) {
            Some(fault) => Err(failure(fault)),
            None => {
                inner.name(Naming::Removed(name.to_owned()));
                Ok(())
            }
        }
    }

    fn sync_folder(&self) -> io::Result<()> {
        let mut inner = self.inner.lock();
        match inner.call(true) {
            Some(fault) => Err(failure(fault)),
            None => {
                let Inner { unsynced, kept, .. } = &mut *inner;
                unsynced.drain(..).for_each(|naming| naming.apply(kept));
                Ok(())
            }
        }
    }

    fn draw(&self) -> io::Result<u64> {
        Ok(self.inner.lock().rng.next())
    }

    fn place(&self, name: &str) -> String {
        format!("disk/{name}")
    }

    fn leave(&self) {}
}

#[derive(Debug)]
struct FaultyFile {
    disk: Faulty,
    inode: usize,
}

impl FaultyFile {
    fn check(&self, inner: &mut Inner, doing: &str) {
        if inner.inodes[self.inode].failed && !inner.dead {
            inner.wrong.push(format!("{doing} a file after a failure of it"));
        }
    }
}

impl DiskFile for FaultyFile {
    fn bytes(&self) -> io::Result<u64> {
        let mut inner = self.disk.inner.lock();
        match inner.call(false) {
            Some(fault) => Err(failure(fault)),
            None => Ok(inner.inodes[self.inode].seen.len() as u64),
        }
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut inner = self.disk.inner.lock();
        if let Some(fault) = inner.call(false) {
            return Err(failure(fault));
        }
        let seen = &inner.inodes[self.inode].seen;
        let rest = seen.get(offset as usize..).unwrap_or_default();
        let read = bytes.len().min(rest.len());
        bytes[..read].copy_from_slice(&rest[..read]);
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut inner = self.disk.inner.lock();
        if inner.dead {
            return Err(failure(Fault::Crash));
        }
        self.check(&mut inner, "writing");
        let fault = inner.call(true);
        // It may have come some way.
        let written = match fault {
            None => bytes.len(),
            Some(_) => inner.rng.below(bytes.len() as u64 + 1) as usize,
        };
        let inode = &mut inner.inodes[self.inode];
        let change = Change::Write(offset, bytes[..written].to_vec());
        change.apply(&mut inode.seen);
        inode.unsynced.push(change);
        inode.failed |= fault.is_some();
        fault.map_or(Ok(()), |fault| Err(failure(fault)))
    }

    fn cut(&self, bytes: u64) -> io::Result<()> {
        let mut inner = self.disk.inner.lock();
        if inner.dead {
            return Err(failure(Fault::Crash));
        }
        self.check(&mut inner, "cutting");
        if let Some(fault) = inner.call(true) {
            return Err(failure(fault));
        }
        let inode = &mut inner.inodes[self.inode];
        let change = Change::Length(bytes);
        change.apply(&mut inode.seen);
        inode.unsynced.push(change);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let hook = self.disk.hook.lock().take();
        if let Some(mut hook) = hook {
            hook();
            self.disk.hook.lock().get_or_insert(hook);
        }
        let mut inner = self.disk.inner.lock();
        if inner.dead {
            return Err(failure(Fault::Crash));
        }
        self.check(&mut inner, "syncing");
        match inner.call(true) {
            Some(Fault::Crash) => Err(failure(Fault::Crash)),
            Some(fault) => {
                inner.lose(self.inode);
                Err(failure(fault))
            }
            None => {
                inner.syncs += 1;
                let Inode { kept, unsynced, .. } = &mut inner.inodes[self.inode];
                unsynced.drain(..).for_each(|change| change.apply(kept));
                Ok(())
            }
        }
    }
}
