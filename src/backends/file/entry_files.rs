//! The entries in their folders: finding, placing and removing files.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use rustix::io::Errno;

use super::error::{failed, foreign, large, passed_over, taken};
use super::folder::{FileRead, Folder, Spot, What};
use super::names::{At, HOME, Layout, Path, beside};
use crate::error::Result;
use crate::filesystem::file_metadata::Kept;

/// The largest value: it is read as a whole.
pub(super) const MAX_VALUE_BYTES: u64 = 1 << 30;

/// A folder, as the names that lead to it.
pub(super) type Way = Vec<Vec<u8>>;

/// The folders whose names changed, and have to be synced.
pub(super) type Touched = BTreeSet<Way>;

/// The folder of a store, without locks: its caller holds them.
#[derive(Debug)]
pub(super) struct Tree {
    pub(super) root: Folder,
    pub(super) layout: Layout,
    /// Whether what is no entry is an error.
    pub(super) strict: bool,
    pub(super) growth: Growth,
}

impl Tree {
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        let path = self.layout.path(key);
        let read = self.enter(&path.folders).and_then(|folder| match folder {
            Some(folder) => self.read(&folder, &path.file),
            None => Ok(None),
        });
        read.map_err(|error| path.told(error))
    }

    /// The value of the entry that has this name in a folder, or the name next to it.
    pub(super) fn read(&self, folder: &Folder, name: &[u8]) -> Result<Option<Bytes>> {
        for name in [name, &beside(name)] {
            let found = folder.read(name, MAX_VALUE_BYTES);
            match found.map_err(|error| failed("reading an entry", error))? {
                FileRead::Value(value) => return Ok(Some(value.into())),
                FileRead::Large => return Err(large(MAX_VALUE_BYTES)),
                FileRead::Other if self.strict => return Err(foreign()),
                FileRead::Missing | FileRead::Folder | FileRead::Other => {}
            }
        }
        Ok(None)
    }

    /// Whether the entry that has this name in a folder, or the name next to it, is there. Opens nothing.
    pub(super) fn is_there(&self, folder: &Folder, name: &[u8]) -> Result<bool> {
        for name in [name, &beside(name)] {
            match look_at(folder, name)? {
                What::File => return Ok(true),
                What::Other if self.strict => return Err(foreign()),
                What::Missing | What::Folder | What::Other => {}
            }
        }
        Ok(false)
    }

    /// What the entry's file has in addition to its content.
    pub(super) fn kept(&self, path: &Path) -> Result<Option<Kept>> {
        let Some(folder) = self.enter(&path.folders)? else { return Ok(None) };
        for name in [&path.file, &beside(&path.file)] {
            let kept = folder.kept(name);
            let kept = kept.map_err(|error| failed("looking at the file of an entry", error))?;
            if kept.is_some() {
                return Ok(kept);
            }
        }
        Ok(None)
    }

    pub(super) fn exists(&self, key: &[u8]) -> Result<bool> {
        let path = self.layout.path(key);
        let Some(folder) = self.enter(&path.folders)? else { return Ok(false) };
        self.is_there(&folder, &path.file)
    }

    /// The length of an entry's file.
    pub(super) fn length(&self, key: &[u8]) -> Result<Option<u64>> {
        Ok(self.get(key)?.map(|value| value.len() as u64))
    }

    /// The folder that these names lead to.
    pub(super) fn enter(&self, way: &[Vec<u8>]) -> Result<Option<Spot<'_>>> {
        let mut spot = Spot::Root(&self.root);
        for name in way {
            match spot.child(name).map_err(|error| failed("opening a folder", error))? {
                Some(folder) => spot = Spot::Below(folder),
                None if self.strict && look_at(&spot, name)? == What::Other => {
                    return Err(foreign());
                }
                None => return Ok(None),
            }
        }
        Ok(Some(spot))
    }

    /// Makes the folders that are missing. A file that has the name of one moves next to it.
    pub(super) fn make_way(&self, way: &[Vec<u8>], touched: &mut Touched) -> Result<Spot<'_>> {
        let making = |error| failed("making a folder", error);
        let mut spot = Spot::Root(&self.root);
        for (depth, name) in way.iter().enumerate() {
            if let Some(folder) = spot.child(name).map_err(making)? {
                spot = Spot::Below(folder);
                continue;
            }
            let above = way.get(..depth).unwrap_or_default();
            self.growth.grew(above);
            touched.insert(above.to_vec());
            match look_at(&spot, name)? {
                What::Missing | What::Folder => {}
                What::File if !name.ends_with(b"%+") => {
                    spot.rename(name, &spot, &beside(name)).map_err(making)?;
                }
                What::File | What::Other => return Err(foreign()),
            }
            spot.make(name).map_err(making)?;
            let made = spot.child(name).and_then(|folder| Ok(folder.ok_or(Errno::NOENT)?));
            spot = Spot::Below(made.map_err(making)?);
        }
        Ok(spot)
    }

    /// Finds out whether a file could be placed, and makes its folders.
    pub(super) fn check_place(
        &self,
        path: &Path,
        from: &Folder,
        touched: &mut Touched,
    ) -> Result<()> {
        let folder = self.make_way(&path.folders, touched)?;
        folder.check_takes(from).map_err(|error| failed("placing an entry", error))?;
        folder.check_writable().map_err(|error| failed("placing an entry", error))?;
        match (look_at(&folder, &path.file)?, look_at(&folder, &beside(&path.file))?) {
            (What::Other, _) | (_, What::Other) => Err(foreign()),
            (What::Folder, What::Folder) => Err(taken()),
            _ => Ok(()),
        }
    }

    /// Finds out whether removing an entry would be refused.
    pub(super) fn check_removable(&self, path: &Path) -> Result<()> {
        let Some(folder) = self.enter(&path.folders)? else { return Ok(()) };
        for name in [&path.file, &beside(&path.file)] {
            match look_at(&folder, name)? {
                What::Other if self.strict => return Err(foreign()),
                What::File => {
                    let writable = folder.check_writable();
                    writable.map_err(|error| failed("removing an entry", error))?;
                }
                What::Missing | What::Folder | What::Other => {}
            }
        }
        Ok(())
    }

    /// Moves a file to where the entry's is.
    pub(super) fn place(
        &self,
        path: &Path,
        from: &Folder,
        name: &[u8],
        touched: &mut Touched,
    ) -> Result<()> {
        let placing = |error| failed("placing an entry", error);
        let folder = self.make_way(&path.folders, touched)?;
        let beside = beside(&path.file);
        let held = look_at(&folder, &path.file)?;
        let target = match held {
            What::Missing | What::File => &path.file,
            What::Folder => &beside,
            What::Other => return Err(foreign()),
        };
        if held != What::File {
            self.growth.grew(&path.folders);
        }
        touched.insert(path.folders.clone());
        from.rename(name, &folder, target).map_err(placing)?;
        // From here on it is done, and nothing may fail.
        if *target == path.file && folder.what(&beside).is_ok_and(|what| what == What::File) {
            // It was needed while a folder had the name. What has the name itself is the entry.
            // If it stays, nothing comes of it.
            let _ = folder.remove(&beside);
        }
        Ok(())
    }

    /// Removes an entry's file, and the folders that are empty without it. It fails before anything is
    /// changed that can be read.
    pub(super) fn remove(&self, path: &Path, touched: &mut Touched) -> Result<()> {
        let removing = |error| failed("removing an entry", error);
        let folder = self.enter(&path.folders)?;
        // Also where nothing is found: the process that removed it may not have synced that yet.
        touched.insert(path.folders.clone());
        let Some(folder) = folder else { return Ok(()) };
        let beside = beside(&path.file);
        let mut found = Vec::new();
        // The file next to it first: after a crash in between, the other is still the entry.
        for name in [&beside, &path.file] {
            match look_at(&folder, name)? {
                What::File => found.push(name),
                What::Other if self.strict => return Err(foreign()),
                What::Missing | What::Folder | What::Other => {}
            }
        }
        for name in &found {
            folder.remove(name).map_err(removing)?;
        }
        drop(folder);
        if !found.is_empty() {
            self.prune(&path.folders, touched);
        }
        Ok(())
    }

    /// Removes a folder and those above it as long as they are empty. One that cannot be removed stays.
    fn prune(&self, way: &[Vec<u8>], touched: &mut Touched) {
        let mut way = way;
        while let Some((name, above)) = way.split_last()
            && let Ok(Some(folder)) = self.enter(above)
            && folder.remove_empty(name).unwrap_or(false)
        {
            touched.insert(above.to_vec());
            way = above;
        }
    }

    /// Brings changed folders to the disk; of those that are gone, the nearest that is there.
    pub(super) fn sync(&self, touched: &Touched) -> Result<()> {
        let syncing = |error| failed("syncing a folder", error);
        for way in touched {
            let mut way = way.as_slice();
            loop {
                if let Some(folder) = self.enter(way)? {
                    folder.sync().map_err(syncing)?;
                    break;
                }
                let Some((_, above)) = way.split_last() else { break };
                way = above;
            }
        }
        Ok(())
    }

    /// Whether the root holds nothing but what is the store's own.
    pub(super) fn is_empty(&self) -> Result<bool> {
        let mut empty = true;
        let listed = self.root.list(|name, _| {
            empty &= name == HOME;
            Ok::<_, std::io::Error>(())
        });
        listed.map_err(|error| failed("listing the folder", error))?;
        Ok(empty)
    }
}

fn look_at(folder: &Folder, name: &[u8]) -> Result<What> {
    folder.what(name).map_err(|error| failed("looking at an entry", error))
}

/// Counts which folders got new names, so that a scan knows whether what it has listed is still all
/// there is. Folders share counters: a scan that is told in vain lists a folder again.
#[derive(Debug)]
pub(super) struct Growth(Box<[AtomicU64]>);

const COUNTERS: usize = 1024;

impl Tree {
    /// The number of everything that is no folder. Fails where some of it is passed over by reads.
    pub(super) fn count(&self) -> Result<u64> {
        // The names that lead to folders that are still to be listed, and what those stand for.
        let mut ways = vec![(Vec::new(), Some(At::default()))];
        let (mut counted, mut passed, mut example) = (0, 0, None);
        while let Some((way, at)) = ways.pop() {
            // Removed meanwhile.
            let Some(folder) = self.enter(&way)? else { continue };
            let listed = folder.list(|name, what| {
                let known = at.filter(|_| what != What::Other).and_then(|at| {
                    let (bytes, kind) = self.layout.parse(name, what == What::Folder, at)?;
                    Some(at.inside(&bytes, kind))
                });
                match what {
                    What::Folder if way.is_empty() && name == HOME => {}
                    What::Folder => ways.push(([&*way, &[name.to_vec()]].concat(), known)),
                    What::File | What::Other => {
                        counted += 1;
                        if known.is_none() {
                            passed += 1;
                            example.get_or_insert_with(|| [&*way, &[name.to_vec()]].concat());
                        }
                    }
                    What::Missing => {}
                }
                Ok::<_, io::Error>(())
            });
            listed.map_err(|error| failed("listing a folder", error))?;
        }
        match example {
            Some(example) if !self.strict => {
                Err(passed_over(passed).with_name(example.join(&b'/')))
            }
            _ => Ok(counted),
        }
    }
}

impl Growth {
    fn grew(&self, way: &[Vec<u8>]) {
        if let Some(counter) = self.0.get(Self::slot(way)) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn slot(way: &[Vec<u8>]) -> usize {
        let mut hasher = DefaultHasher::new();
        for name in way {
            name.hash(&mut hasher);
        }
        (hasher.finish() % COUNTERS as u64) as usize
    }

    pub(super) fn count(&self, slot: usize) -> u64 {
        self.0.get(slot).map_or(0, |counter| counter.load(Ordering::Relaxed))
    }
}

impl Default for Growth {
    fn default() -> Self {
        Self((0..COUNTERS).map(|_| AtomicU64::new(0)).collect())
    }
}
