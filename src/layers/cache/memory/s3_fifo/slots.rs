//! The slots of a shard: a list without holes, in pieces of one size, so that neither growth nor removals leave memory
//! unused.

use std::sync::atomic::AtomicU8;

use super::packed::Kept;

/// Slots of a piece.
const PIECE: usize = 32;

/// What a slot takes, with the pointer to its piece.
pub(super) const SLOT_BYTES: u64 = size_of::<Slot>() as u64 + 1;

/// The end of a queue.
pub(super) const NONE: u32 = u32::MAX;

/// The queues of a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Queue {
    /// Of what is new.
    #[default]
    Small,
    Main,
}

/// An entry in a queue.
#[derive(Debug, Default)]
pub(super) struct Slot {
    pub(super) kept: Kept,
    /// Of the key: half of what the engine makes of it.
    pub(super) hash: u32,
    /// The neighbours in the queue.
    pub(super) older: u32,
    pub(super) newer: u32,
    pub(super) queue: Queue,
    /// Reads that it is known for.
    pub(super) uses: AtomicU8,
}

#[derive(Debug, Default)]
pub(super) struct Slots {
    #[expect(
        clippy::vec_box,
        reason = "the list of pieces grows by copying, and no slot is to be copied"
    )]
    pieces: Vec<Box<[Slot; PIECE]>>,
    length: usize,
}

impl Slots {
    pub(super) const fn len(&self) -> usize {
        self.length
    }

    #[inline]
    pub(super) fn get(&self, at: u32) -> Option<&Slot> {
        let at = at as usize;
        self.pieces.get(at / PIECE).and_then(|piece| piece.get(at % PIECE))
    }

    pub(super) fn get_mut(&mut self, at: u32) -> Option<&mut Slot> {
        let at = at as usize;
        self.pieces.get_mut(at / PIECE).and_then(|piece| piece.get_mut(at % PIECE))
    }

    /// Adds a slot at the end. Gives its place; `None` if there are as many as can be told apart.
    pub(super) fn push(&mut self, slot: Slot) -> Option<u32> {
        let at = u32::try_from(self.length).ok().filter(|at| *at != NONE)?;
        if self.length == self.pieces.len() * PIECE {
            self.pieces.push(Box::new(std::array::from_fn(|_| Slot::default())));
        }
        *self.get_mut(at)? = slot;
        self.length += 1;
        Some(at)
    }

    /// Removes a slot; the last one moves into its place, if it is another. Gives where that was.
    pub(super) fn swap_remove(&mut self, at: u32) -> Option<u32> {
        let last = u32::try_from(self.length.checked_sub(1)?).ok()?;
        let slot = std::mem::take(self.get_mut(last)?);
        self.length -= 1;
        // One piece is left for what comes next.
        if self.length + 2 * PIECE <= self.pieces.len() * PIECE {
            self.pieces.pop();
        }
        if at != last {
            *self.get_mut(at)? = slot;
        }
        Some(last)
    }

    #[cfg(test)]
    pub(super) const fn room(&self) -> usize {
        self.pieces.len() * PIECE
    }
}
