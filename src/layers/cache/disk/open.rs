//! An open disk: its level, and the thread that writes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::super::config::DiskConfig;
use super::disk_level::DiskLevel;
use super::log::Shape;
use super::table::Stop;
use crate::error::{Error, Result};
use crate::layer::Context;
use crate::types::units::ByteSize;

/// An open level, and the thread that writes for it.
#[derive(Debug)]
pub(in crate::layers::cache) struct Disk {
    level: Arc<DiskLevel>,
    writer: Option<JoinHandle<()>>,
    /// A cache has it: what was there before may have been changed since.
    taken: bool,
}

impl Disk {
    /// Takes the folder, and starts the thread. Waits for the disk.
    ///
    /// # Errors
    /// `Config` if the folder holds something else, or a newer format; `Conflict` if it is in use; otherwise as
    /// the file system says.
    pub(in crate::layers::cache) fn open(
        config: &DiskConfig,
        index_memory: ByteSize,
        context: &Context,
    ) -> Result<Self> {
        let shape = Shape::new(config.capacity.0, index_memory.0);
        await_former(&context.resolve(&config.path));
        let level = Arc::new(DiskLevel::open(config, shape, context)?);
        let writer = std::thread::Builder::new().name("tierstack-cache".to_owned()).spawn({
            let level = Arc::clone(&level);
            move || level.run()
        });
        let writer = writer.map_err(|error| {
            Error::internal("the thread of the cache's disk did not start").with_source(error)
        })?;
        Ok(Self { level, writer: Some(writer), taken: false })
    }

    /// One that is written by hand.
    #[cfg(test)]
    pub(in crate::layers::cache) fn by_hand(
        config: &DiskConfig,
        context: &Context,
    ) -> Result<Self> {
        let shape = Shape::new(config.capacity.0, 1 << 20);
        let level = Arc::new(DiskLevel::open(config, shape, context)?);
        Ok(Self { level, writer: None, taken: true })
    }

    #[cfg(test)]
    pub(in crate::layers::cache) fn write_out(&self) {
        while self.level.step(false) {}
    }

    #[cfg(test)]
    pub(in crate::layers::cache) fn break_it(&self) {
        self.level.folder.fault.after(0);
    }

    pub(in crate::layers::cache) fn level(&self) -> &Arc<DiskLevel> {
        &self.level
    }

    pub(in crate::layers::cache) fn taken(mut self) -> Self {
        self.taken = true;
        self
    }
}

/// Ends the thread without writing what waits: only a close does that. Where no cache came to have it, as the
/// opening of its stack failed, what was there is there the next time.
impl Drop for Disk {
    fn drop(&mut self) {
        let keep = self.level.warm && !self.taken;
        self.level.stop(if keep { Stop::Written { keep } } else { Stop::Now });
        let Some(writer) = self.writer.take() else { return };
        if Handle::try_current().is_err() {
            // It has told of its panic.
            let _ = writer.join();
        } else {
            // A task of a runtime may not wait for a disk. The next one that opens the folder does.
            let mut ending = ENDING.lock();
            ending.retain(|(_, writer)| !writer.is_finished());
            ending.push((self.level.folder.path().to_owned(), writer));
        }
    }
}

/// Threads that let go of their folder when they end, which they were told.
static ENDING: Mutex<Vec<(PathBuf, JoinHandle<()>)>> = Mutex::new(Vec::new());

/// Waits for those that have that folder.
fn await_former(path: &Path) {
    let Ok(path) = path.canonicalize() else { return };
    let former: Vec<_> = ENDING.lock().extract_if(.., |(folder, _)| *folder == path).collect();
    for (_, writer) in former {
        // It has told of its panic.
        let _ = writer.join();
    }
}
