//! Batches of several operations: the intent, doing what it says, and finishing it after a crash.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use parking_lot::MutexGuard;

use super::core::{Core, INTENT, INTENT_UNSYNCED, Own, unfinished};
use super::entry_files::Touched;
use super::error::failed;
use super::fault;
use super::folder::What;
use super::intent::{Deed, Written, decode, encode};
use super::names::Path;
use super::own_files::read_own;
use super::prepare::Temporary;
use crate::error::{Error, Result};
use crate::types::Op;

impl Core {
    pub(super) fn write_many(
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
