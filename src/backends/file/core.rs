//! Writes: prepared concurrently, decided one at a time, and never seen half done.
//!
//! 1. Values are written to files in `.tierstack/temporary`, and synced, with no lock held.
//! 2. Under `deciding`, a batch of several operations writes down its intent: from here on it will be
//!    done, by this process or by the next one that opens the folder.
//! 3. With readers shut out, files are renamed and removed.
//! 4. The folders are synced, and the intent is removed.
//!
//! Between 2 and 4 no other write is decided: replaying the intent after a crash would undo it. If 3 or 4
//! fails, the batch is *unfinished*, and every operation tries to finish it before it does anything else.

use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard, RwLock};

use super::error::{failed, not_kept, removed};
use super::fault;
use super::folder::{Folder, What};
use super::intent::{Deed, Written, decode, encode};
use super::names::Path;
use super::private_files::read_own;
use super::tree::{Touched, Tree};
use crate::error::{Error, ErrorKind, Result, Retry};
use crate::types::{Batch, Condition, Op, Value};

pub(super) const INTENT: &[u8] = b"intent";
/// The intent of a store that does not sync: a power cut can tear it.
pub(super) const INTENT_UNSYNCED: &[u8] = b"intent-unsynced";
/// What the lock file holds while nobody has the store open.
pub(super) const CLOSED: &str = "closed\n";
/// Threads that sync the values of one batch: a journaling file system takes their syncs together.
const SYNCERS: usize = 16;

/// An open store.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) tree: Tree,
    /// `None`: the folder was no store before, and is not made one, as it is only read.
    pub(super) own: Option<Own>,
    pub(super) sync: bool,
    /// Held while a write is decided. Readers never hold it.
    pub(super) deciding: Mutex<()>,
    /// Readers share it for the time of a get or a page.
    pub(super) view: RwLock<()>,
    pub(super) unfinished: AtomicBool,
    pub(super) closed: AtomicBool,
    /// The failure after which it is unknown what is on the disk.
    pub(super) broken: Mutex<Option<Error>>,
    /// The lock of the folder.
    pub(super) lock: Mutex<Option<File>>,
    pub(super) next: AtomicU64,
}

/// The folders of the store's own files.
#[derive(Debug)]
pub(super) struct Own {
    /// `.tierstack`
    pub(super) home: Folder,
    /// `.tierstack/temporary`
    pub(super) temporary: Folder,
}

/// A file in `temporary`, which goes away with it unless it was placed.
struct Temporary<'a> {
    folder: &'a Folder,
    written: Written,
    placed: bool,
}

impl Temporary<'_> {
    /// It is placed, or an intent will see to it.
    fn keep(mut self) {
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
    pub(super) fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) { Err(Error::closed()) } else { Ok(()) }
    }

    /// In a folder that was removed, nothing is found: what it held may be in another one by now.
    fn check_there(&self) -> Result<()> {
        match self.tree.root.is_removed() {
            Ok(false) => Ok(()),
            Ok(true) => Err(removed()),
            Err(error) => Err(failed("looking at the folder", error)),
        }
    }

    fn own(&self) -> Result<&Own> {
        self.own.as_ref().ok_or_else(|| {
            Error::new(
                ErrorKind::Access,
                "the folder was opened for reading only, and has no .tierstack, without which nothing can be written",
            )
        })
    }

    /// Reads while nothing is written. Blocks.
    pub(super) fn reading<T>(&self, read: impl FnOnce(&Tree) -> Result<T>) -> Result<T> {
        loop {
            let view = self.view.read();
            self.check_open()?;
            if !self.unfinished.load(Ordering::Acquire) {
                let found = read(&self.tree)?;
                self.check_there()?;
                return Ok(found);
            }
            drop(view);
            drop(self.decide()?);
        }
    }

    /// Waits for its turn to write, and finishes what another write could not.
    fn decide(&self) -> Result<MutexGuard<'_, ()>> {
        let turn = self.deciding.lock();
        self.check_open()?;
        if let Some(error) = &*self.broken.lock() {
            return Err(error.clone());
        }
        self.check_there()?;
        if self.unfinished.load(Ordering::Acquire) {
            self.finish().map_err(unfinished)?;
        }
        Ok(turn)
    }

    pub(super) fn write(&self, batch: &Batch) -> Result<()> {
        let ops = batch.last_ops();
        let own = self.own()?;
        let files = self.prepare(&ops, own)?;
        let turn = self.decide()?;
        for condition in batch.conditions() {
            self.check(condition).map_err(|error| error.with_key(condition.key()))?;
        }
        match ops.as_slice() {
            [] => Ok(()),
            [op] => self.write_one(op, files, own, turn),
            _ => self.write_many(&ops, files, own, turn),
        }
    }

    /// It is the caller's turn to write.
    fn check(&self, condition: &Condition) -> Result<()> {
        let holds = match condition {
            Condition::Absent(key) => !self.tree.exists(key)?,
            Condition::Equals(key, _) => {
                condition.holds(self.tree.get(key)?.map(Value::new).as_ref())
            }
        };
        if holds { Ok(()) } else { Err(condition.unmet()) }
    }

    /// One rename or removal is atomic by itself.
    fn write_one(
        &self,
        op: &Op,
        files: Vec<Temporary<'_>>,
        own: &Own,
        turn: MutexGuard<'_, ()>,
    ) -> Result<()> {
        let path = self.tree.layout.path(op.key());
        let mut touched = Touched::new();
        let done = {
            let _view = self.view.write();
            match files.into_iter().next() {
                Some(file) => {
                    let name = file.written.name();
                    let placed = self.tree.place(&path, &own.temporary, &name, &mut touched);
                    placed.map(|()| file.keep())
                }
                None => self.tree.remove(&path, &mut touched),
            }
        };
        // Others may rely on a folder that was made here once they get their turn, so it is synced
        // before; that of the entry alone is synced next to the writes of others.
        let mut turn = Some(turn);
        if touched.len() == 1 && done.is_ok() {
            turn = None;
        }
        let synced = self.sync_touched(&touched);
        drop(turn);
        done.map_err(|error| path.told(error).with_key(op.key())).and(synced)
    }

    fn write_many(
        &self,
        ops: &[&Op],
        files: Vec<Temporary<'_>>,
        own: &Own,
        _turn: MutexGuard<'_, ()>,
    ) -> Result<()> {
        let deeds = self.plan(ops, &files, own)?;
        if let Err(error) = self.write_intent(&encode(&deeds)?, own) {
            if self.check_unbroken().is_err() {
                // The intent has its name, and the next process that opens the folder needs the files for it.
                files.into_iter().for_each(Temporary::keep);
            }
            return Err(error);
        }
        let mut done = 0;
        let finished = self.finish_deeds(&deeds, self.intent_name(), own, &mut done);
        if let Err(error) = finished {
            if done == 0 && self.give_up(own) {
                return Err(error);
            }
            files.into_iter().for_each(Temporary::keep);
            return Err(unfinished(error));
        }
        files.into_iter().for_each(Temporary::keep);
        Ok(())
    }

    /// Takes the decision back, as nothing of it was done. Whether that worked.
    fn give_up(&self, own: &Own) -> bool {
        if own.home.remove(self.intent_name()).is_err() {
            return false;
        }
        self.unfinished.store(false, Ordering::Release);
        if self.sync
            && let Err(error) = own.home.sync()
        {
            // After a power cut the intent may be there again.
            self.break_with(failed("taking a batch back", error));
            return false;
        }
        true
    }

    /// What a batch is going to do. Makes the folders for it, which is what most likely fails on a full disk,
    /// and refuses what could not be done.
    fn plan(&self, ops: &[&Op], files: &[Temporary<'_>], own: &Own) -> Result<Vec<Deed>> {
        let mut written = files.iter().map(|file| file.written);
        let mut deeds = Vec::with_capacity(ops.len());
        let mut touched = Touched::new();
        for op in ops {
            let key = op.key().clone();
            let path = self.tree.layout.path(&key);
            let told = |error: Error| path.told(error).with_key(op.key());
            if op.value().is_none() {
                self.tree.check_removable(&path).map_err(told)?;
                deeds.push(Deed::Delete { key });
                continue;
            }
            let _view = self.view.write();
            self.tree.check_place(&path, &own.temporary, &mut touched).map_err(told)?;
            let file = written.next().ok_or_else(|| Error::internal("a put without its file"))?;
            deeds.push(Deed::Put { key, file });
        }
        self.sync_touched(&touched)?;
        Ok(deeds)
    }

    /// The moment of decision is the rename.
    fn write_intent(&self, content: &[u8], own: &Own) -> Result<()> {
        let writing = |error| failed("writing the intent of a batch", error);
        let name = Written { id: self.next_id(), bytes: 0, crc: 0 }.name();
        // The names of the values as well, without which an intent means nothing.
        let values = if self.sync { own.temporary.sync() } else { Ok(()) };
        let written = values
            .and_then(|()| own.temporary.create(&name, content, None, self.sync))
            .and_then(|()| own.temporary.rename(&name, &own.home, self.intent_name()));
        if let Err(error) = written {
            if !fault::dead() {
                let _ = own.temporary.remove(&name);
            }
            return Err(writing(error));
        }
        if self.sync
            && let Err(error) = own.home.sync()
        {
            return Err(self.break_with(writing(error)));
        }
        Ok(())
    }

    fn intent_name(&self) -> &'static [u8] {
        if self.sync { INTENT } else { INTENT_UNSYNCED }
    }

    /// Does what an intent on the disk says, as far as it is not done. It is the caller's turn.
    pub(super) fn finish(&self) -> Result<()> {
        self.check_unbroken()?;
        if let Some(own) = &self.own {
            for name in [INTENT, INTENT_UNSYNCED] {
                if let Some(content) = read_own(&own.home, name)? {
                    self.finish_deeds(&decode(&content)?, name, own, &mut 0)?;
                }
            }
        }
        // Also where somebody has removed the intent, to give the rest up.
        self.unfinished.store(false, Ordering::Release);
        Ok(())
    }

    fn finish_deeds(
        &self,
        deeds: &[Deed],
        intent: &[u8],
        own: &Own,
        count: &mut usize,
    ) -> Result<()> {
        let mut touched = Touched::new();
        {
            let _view = self.view.write();
            let done = deeds.iter().try_for_each(|deed| {
                let done = self.carry_out(deed, own, &mut touched);
                *count += usize::from(done.is_ok());
                done.map_err(|error| error.with_key(deed.key()))
            });
            // While it is half done, no reader gets past this.
            self.unfinished.store(done.is_err(), Ordering::Release);
            done?;
        }
        self.sync_touched(&touched)?;
        let removed =
            own.home.remove(intent).and_then(|_| if self.sync { own.home.sync() } else { Ok(()) });
        removed.map_err(|error| {
            self.break_with(failed("removing the intent of a batch that is done", error))
        })
    }

    /// Doing it again changes nothing.
    fn carry_out(&self, deed: &Deed, own: &Own, touched: &mut Touched) -> Result<()> {
        let path = self.tree.layout.path(deed.key());
        self.carry_out_at(&path, deed, own, touched).map_err(|error| path.told(error))
    }

    fn carry_out_at(
        &self,
        path: &Path,
        deed: &Deed,
        own: &Own,
        touched: &mut Touched,
    ) -> Result<()> {
        match deed {
            Deed::Delete { .. } => self.tree.remove(path, touched),
            Deed::Put { file, .. } => {
                touched.insert(path.folders.clone());
                let name = file.name();
                let waits = own.temporary.what(&name);
                match waits.map_err(|error| failed("looking for a file of a batch", error))? {
                    What::File => self.tree.place(path, &own.temporary, &name, touched),
                    // It was placed already.
                    _ => Ok(()),
                }
            }
        }
    }

    /// Writes the values to files, many at a time if they are to be synced.
    fn prepare<'a>(&self, ops: &[&Op], own: &'a Own) -> Result<Vec<Temporary<'a>>> {
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

    fn next_id(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Writes entries one by one, in one go. The folders that changed are synced by the caller, at the end.
    pub(super) fn ingest(&self, batch: &Batch, touched: &mut Touched) -> Result<()> {
        let ops = batch.last_ops();
        let own = self.own()?;
        let files = self.prepare(&ops, own)?;
        let _turn = self.decide()?;
        let mut made = Touched::new();
        let _view = self.view.write();
        for (op, file) in ops.iter().zip(files) {
            let path = self.tree.layout.path(op.key());
            let told = |error: Error| path.told(error).with_key(op.key());
            self.tree.make_way(&path.folders, &mut made).map_err(told)?;
            let placed = self.tree.place(&path, &own.temporary, &file.written.name(), touched);
            placed.map_err(told)?;
            file.keep();
        }
        self.sync_touched(&made)
    }

    /// After a failed sync the kernel may have dropped what it could not write, and the next sync would
    /// succeed: so the store writes no more.
    pub(super) fn sync_touched(&self, touched: &Touched) -> Result<()> {
        if !self.sync {
            return Ok(());
        }
        self.tree.sync(touched).map_err(|error| self.break_with(error))
    }

    fn break_with(&self, error: Error) -> Error {
        let broken = Error::new(
            ErrorKind::Unavailable,
            format!(
                "{}; whether earlier writes reached the disk is unknown: open the store again",
                error.message()
            ),
        )
        .with_source(error)
        .with_retry(Retry::Never);
        self.broken.lock().get_or_insert(broken).clone()
    }

    fn check_unbroken(&self) -> Result<()> {
        self.broken.lock().clone().map_or(Ok(()), Err)
    }

    /// Brings all that was written to the disk. With `sync` it is there already.
    pub(super) fn flush(&self) -> Result<()> {
        let _turn = self.decide()?;
        self.sync_everything()
    }

    fn sync_everything(&self) -> Result<()> {
        #[cfg(target_os = "linux")]
        if !self.sync {
            let synced = self.tree.root.sync_all();
            return synced
                .map_err(|error| self.break_with(failed("syncing the file system", error)));
        }
        Ok(())
    }

    /// Syncs, and lets go of the folder.
    pub(super) fn close(&self) -> Result<()> {
        let _turn = self.deciding.lock();
        let unfinished = self.unfinished.load(Ordering::Acquire);
        let finished = if unfinished { self.finish() } else { self.check_unbroken() };
        let _view = self.view.write();
        let lock = self.lock.lock().take();
        if self.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        finished?;
        self.sync_everything()?;
        let Some(mut lock) = lock else { return Ok(()) };
        let said = lock.set_len(0).and_then(|()| {
            lock.rewind()?;
            lock.write_all(CLOSED.as_bytes())
        });
        said.map_err(|error| failed("closing", error))
    }

    /// Checks an intent before any of it is done.
    pub(super) fn judge(&self, content: &Bytes, own: &Own) -> Result<()> {
        let lost = || {
            Error::corruption(
                "the files of an unfinished batch are missing or damaged (.tierstack/temporary); restore the folder from a backup, or remove .tierstack/intent to give the rest of the batch up",
            )
        };
        for deed in decode(content)? {
            let Deed::Put { key, file } = deed else { continue };
            let whole = match read_own(&own.temporary, &file.name())? {
                Some(value) => {
                    value.len() as u64 == file.bytes && crc32fast::hash(&value) == file.crc
                }
                // Placed already; nothing was written after it.
                None => self.tree.length(&key)? == Some(file.bytes),
            };
            if !whole {
                return Err(lost());
            }
        }
        Ok(())
    }
}

/// A batch that was decided, and is not done yet: whether it was written is for the next operation.
fn unfinished(error: Error) -> Error {
    if error.kind() == ErrorKind::Corruption {
        return error;
    }
    let message = format!(
        "a batch was begun and could not be finished, which every further operation tries again before its own work: {}",
        error.message()
    );
    Error::new(ErrorKind::Unavailable, message).with_source(error).with_retry(Retry::Later)
}
