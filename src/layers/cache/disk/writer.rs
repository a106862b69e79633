//! The thread that writes, and the end of it. A test takes its steps by hand.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::disk_level::DiskLevel;
use super::index::Index;
use super::index_file::{self, Saved};
use super::log::Log;
use super::table::{State, Stop};

impl DiskLevel {
    pub(super) fn run(&self) {
        if catch_unwind(AssertUnwindSafe(|| while self.step(true) {})).is_err() {
            self.fail(&io::Error::other("the thread that writes panicked"));
            self.end(false);
        }
    }

    /// Writes the next entry, or ends. Whether it goes on: without waiting, there is nothing more to do.
    pub(super) fn step(&self, wait: bool) -> bool {
        let stop = {
            let mut table = self.table.lock();
            while wait && table.stop == Stop::No && !table.has_queued() {
                self.wake.wait(&mut table);
            }
            match table.stop {
                Stop::Written { .. } | Stop::No if table.has_queued() => None,
                stop => Some(stop),
            }
        };
        match stop {
            None => self.write_next(),
            Some(Stop::No) => return false,
            Some(Stop::Written { keep }) => self.end(keep),
            Some(Stop::Now) => self.end(false),
        }
        stop.is_none()
    }

    fn write_next(&self) {
        let mut log = self.log.lock();
        let next = self.table.lock().next();
        let (Some((offer, key, copy)), Some(log)) = (next, log.as_mut()) else { return };
        let forget = |segment| self.forget_segment(segment);
        let location = self.make_room_in_index(log).and_then(|()| log.append(&key, &copy, forget));
        self.counters.bytes(log);
        match location {
            Ok(location) => {
                let mut table = self.table.lock();
                table.publish(offer, self.hash(&key), &key, location);
                self.counters.entries(&table);
                drop(table);
                self.written.notify_one();
            }
            Err(error) => self.fail(&error),
        }
    }

    /// For one entry more.
    fn make_room_in_index(&self, log: &mut Log) -> io::Result<()> {
        while self.table.lock().index().len() as u64 >= self.most_entries
            && log.remove_oldest(|segment| self.forget_segment(segment))?
        {}
        Ok(())
    }

    /// A part at a time, so that no task waits for all of them.
    fn forget_segment(&self, segment: u64) {
        for part in 0.. {
            let mut table = self.table.lock();
            let Some(gone) = table.index().drop_segment(part, segment) else { return };
            self.counters.evicted(gone);
            self.counters.entries(&table);
        }
    }

    pub(super) fn stop(&self, stop: Stop) {
        let mut table = self.table.lock();
        if table.state == State::Open && stop != Stop::Now {
            table.state = State::Closing;
        }
        table.stop = stop;
        drop(table);
        self.wake.notify_one();
        self.written.notify_one();
    }

    /// Writes out what waits, keeps or removes what is there, and leaves the folder to others. What has not
    /// come about within that time is given up: then the next open finds it empty.
    pub(in crate::layers::cache) async fn close(&self, keep: bool, within: Duration) {
        self.stop(Stop::Written { keep: keep && self.warm });
        let mut closed = self.closed.subscribe();
        let closed = async move { drop(closed.wait_for(|closed| *closed).await) };
        tokio::select! {
            () = closed => {}
            () = self.clock.sleep(within) => {
                self.stop(Stop::Now);
                tracing::warn!("the disk of a cache was too slow to be written out at a close; it begins empty next time");
            }
        }
    }

    fn end(&self, keep: bool) {
        let (index, owner, keep) = {
            let mut table = self.table.lock();
            let keep = keep && table.state == State::Closing;
            let index = std::mem::take(table.index());
            table.clear();
            table.state = if keep { State::Saved } else { State::Off };
            (index, table.owner, keep)
        };
        if let Some(mut log) = self.log.lock().take() {
            let ended = match owner.filter(|_| keep) {
                Some(owner) => self.save(&mut log, index, owner),
                None => log.clear(),
            };
            if let Err(error) = ended {
                tracing::warn!(%error, "the disk of a cache failed at its close; it begins empty next time");
            }
        }
        self.counters.closed();
        self.folder.leave();
        self.closed.send_replace(true);
    }

    pub(super) fn save(&self, log: &mut Log, mut index: Index, owner: u64) -> io::Result<()> {
        let bytes = index_file::length(log.segments().len(), index.len());
        log.make_room(bytes, |segment| index.drop_segment_everywhere(segment))?;
        let segments: Vec<_> = log.segments().collect();
        for segment in &segments {
            self.folder.sync_segment(segment.number)?;
        }
        let stood = self.timeline.stands(&*self.clock);
        let saved = Saved { owner, hash_key: self.hash_key, stood, segments };
        self.folder.save_index(|file| index_file::encode(&saved, &index, file))?;
        if self.table.lock().state == State::Spoiled {
            self.folder.forget_index()?;
        }
        Ok(())
    }
}
