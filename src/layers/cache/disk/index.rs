//! Where the records are: in memory, by the hash of their key.

use std::collections::HashMap;

use foldhash::fast::FixedState;

/// Going over a part disturbs writers for a moment: so there are many.
const PARTS: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Location {
    pub(super) segment: u64,
    pub(super) offset: u32,
    pub(super) length: u32,
}

/// Two keys of one hash share a place: the later one has it, and the other is a miss.
pub(super) struct Index {
    parts: Box<[HashMap<u64, Location, FixedState>]>,
    entries: usize,
}

impl Default for Index {
    fn default() -> Self {
        Self { parts: vec![HashMap::default(); PARTS].into(), entries: 0 }
    }
}

impl Index {
    #[expect(clippy::indexing_slicing, reason = "the top byte is below the number of parts")]
    fn part(&mut self, hash: u64) -> &mut HashMap<u64, Location, FixedState> {
        &mut self.parts[(hash >> 56) as usize]
    }

    pub(super) fn len(&self) -> usize {
        self.entries
    }

    pub(super) fn get(&mut self, hash: u64) -> Option<Location> {
        self.part(hash).get(&hash).copied()
    }

    pub(super) fn insert(&mut self, hash: u64, location: Location) {
        self.entries += usize::from(self.part(hash).insert(hash, location).is_none());
    }

    pub(super) fn remove(&mut self, hash: u64) {
        self.entries -= usize::from(self.part(hash).remove(&hash).is_some());
    }

    /// Removes what lies in that segment from one of the parts. `None`: there are no more of them.
    pub(super) fn drop_segment(&mut self, part: usize, segment: u64) -> Option<usize> {
        let part = self.parts.get_mut(part)?;
        let before = part.len();
        part.retain(|_, location| location.segment != segment);
        let gone = before - part.len();
        self.entries -= gone;
        Some(gone)
    }

    pub(super) fn drop_segment_everywhere(&mut self, segment: u64) {
        for part in 0..PARTS {
            self.drop_segment(part, segment);
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, Location)> {
        self.parts.iter().flatten().map(|(hash, location)| (*hash, *location))
    }
}
