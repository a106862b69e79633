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

use parking_lot::MutexGuard;

use super::core::{Core, Own};
use super::entry_files::Touched;
use super::prepare::Temporary;
use crate::error::{Error, Result};
use crate::types::{Batch, Condition, Op, Value};

impl Core {
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
}
