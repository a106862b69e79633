//! Writes under way: registered before they touch the store below, and ended once they are done.
//!
//! What was written may be kept when it is acknowledged, under the same rule as what was loaded: its ticket is taken as
//! the write is registered, and everything else that touches the key meanwhile begins another generation or another
//! epoch. Of two writes of one key that overlap, the later one begins in doubt and changes the generation of the
//! earlier one, so neither is kept: in which order the store below took them is unknown.

use super::epoch::Epoch;
use super::protocol::Coherence;
use super::versions::Ticket;

/// A write under way.
#[must_use]
pub(in crate::layers::cache) struct WriteGuard<'a> {
    coherence: &'a Coherence,
    /// Of its keys, by their hashes, each once. `None`: of any keys.
    tickets: Option<Vec<Ticket>>,
    settled: bool,
}

impl Coherence {
    /// Registers a write of these keys. It ends when the guard is dropped, in doubt unless it was
    /// [settled](WriteGuard::settle).
    pub(in crate::layers::cache) fn begin_write<'k>(
        &self,
        keys: impl Iterator<Item = &'k [u8]>,
    ) -> WriteGuard<'_> {
        let mut hashes: Vec<u64> = keys.map(|key| self.hash(key)).collect();
        // A key that is named twice would disturb itself.
        hashes.sort_unstable();
        hashes.dedup();
        let tickets = hashes.into_iter().map(|hash| self.begin(hash)).collect();
        WriteGuard { coherence: self, tickets: Some(tickets), settled: false }
    }

    /// Registers a write of any keys.
    pub(in crate::layers::cache) fn begin_write_all(&self) -> WriteGuard<'_> {
        self.begin_all();
        WriteGuard { coherence: self, tickets: None, settled: false }
    }
}

impl WriteGuard<'_> {
    /// Keeps what the write put there, unless anything else touched the key since the write began. Of an acknowledged
    /// write only, and before it is settled.
    pub(in crate::layers::cache) fn keep(&self, key: &[u8], keep: impl FnOnce(Epoch)) {
        let hash = self.coherence.hash(key);
        let Some(tickets) = &self.tickets else { return };
        let at = tickets.binary_search_by_key(&hash, Ticket::hash);
        if let Some(ticket) = at.ok().and_then(|at| tickets.get(at)) {
            self.coherence.if_unchanged(*ticket, key, || keep(ticket.epoch));
        }
    }

    /// The outcome is known: nothing of the write arrives below any more.
    pub(in crate::layers::cache) fn settle(mut self) {
        self.settled = true;
    }
}

impl Drop for WriteGuard<'_> {
    fn drop(&mut self) {
        let coherence = self.coherence;
        let doubt = (!self.settled).then(|| coherence.doubt());
        match &self.tickets {
            Some(tickets) => tickets.iter().for_each(|ticket| coherence.end(ticket.hash(), doubt)),
            None => coherence.end_all(doubt),
        }
    }
}
