//! The settings, and what they guarantee.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::types::units::{ByteSize, Span};
use crate::types::{Conditions, Counting, Durability, Freshness, Place, Profile, check_path_of};

/// The name of the layer.
pub(super) const NAME: &str = "write_back";

/// When a write is acknowledged. See the [module docs](super).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "config", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Ack {
    /// When it is on the disk, in the journal.
    #[default]
    Journal,
    /// When it is in memory. A crash loses what the store below does not have yet.
    Memory,
    /// When the store below has it.
    Through,
}

/// When a stack is open whose journal still holds writes. See the [module docs](super).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "config", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Opening {
    /// At once: they are in memory, and reach the store below as soon as it takes them. A stack that was open over the store
    /// before opens also while the store cannot be reached.
    #[default]
    Later,
    /// Once the store below has them. Where it does not take them, opening fails.
    Wait,
}

/// Settings of the write-back layer. See the [module docs](super).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "config", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct WriteBackConfig {
    /// The folder of the journal. It is made if it is missing. One process at a time can use it, and one store. Needed
    /// with `ack: journal`; with the other two only if a batch may ask to survive more.
    pub path: Option<PathBuf>,
    /// When a write is acknowledged: `journal` (the default), once it is on the disk in the journal; `memory`, at once, so that a
    /// crash loses the newest writes; `through`, once the store below has it. A batch that asks to survive more or less
    /// is acknowledged accordingly.
    pub ack: Ack,
    /// How long a write waits at most before it is on its way to the store below. Default 500ms. Longer merges more
    /// writes of the same keys.
    pub flush_after: Span,
    /// So many bytes are on their way at once, and are written below as one batch. Default 1MiB.
    pub flush_bytes: ByteSize,
    /// Bytes of writes that the store below does not have yet. Default 64MiB; at least `flush_bytes`. At this bound writers wait.
    pub max_dirty: ByteSize,
    /// How long a writer waits for room at most, and `close` for the store below. Default 30s.
    pub max_wait: Span,
    /// Whether a stack is open before the store below has what the journal holds from before: `later` (the default), also while the store
    /// below cannot be reached, or `wait`.
    pub open: Opening,
}

impl Default for WriteBackConfig {
    fn default() -> Self {
        Self {
            path: None,
            ack: Ack::Journal,
            flush_after: Span(Duration::from_millis(500)),
            flush_bytes: ByteSize(1 << 20),
            max_dirty: ByteSize(64 << 20),
            max_wait: Span(Duration::from_secs(30)),
            open: Opening::Later,
        }
    }
}

/// The smallest and the largest buffers.
const MIN_BYTES: u64 = 1 << 10;
const MAX_BYTES: u64 = 64 << 30;

impl WriteBackConfig {
    pub(super) fn check(&self) -> Result<()> {
        match &self.path {
            Some(path) => check_path_of("path", path)?,
            None if self.ack == Ack::Journal => {
                return Err(Error::config(
                    "path is missing, and `ack: journal` needs a folder for the journal; name one, or choose `ack: memory` or `ack: through`",
                ));
            }
            None => {}
        }
        let sizes = [("flush_bytes", self.flush_bytes), ("max_dirty", self.max_dirty)];
        for (name, size) in sizes {
            if !(MIN_BYTES..=MAX_BYTES).contains(&size.0) {
                return Err(Error::config(format!(
                    "{name} is {size}; it must be from {} to {}",
                    ByteSize(MIN_BYTES),
                    ByteSize(MAX_BYTES)
                ))
                .with_setting(name));
            }
        }
        if self.max_dirty < self.flush_bytes {
            return Err(Error::config(format!(
                "max_dirty is {}, less than flush_bytes, {}; it must be at least as much",
                self.max_dirty, self.flush_bytes
            ))
            .with_setting("max_dirty"));
        }
        if self.max_wait.0.is_zero() {
            return Err(Error::config(
                "max_wait is 0, so that nothing could wait; it must be longer, such as 30s",
            )
            .with_setting("max_wait"));
        }
        Ok(())
    }

    /// Bytes that the journal may hold: more than what is dirty, as it keeps each write of a key.
    pub(super) fn journal_bytes(&self) -> ByteSize {
        ByteSize(self.max_dirty.0.saturating_mul(4).max(64 << 20))
    }

    /// What a write survives that is on the disk in the journal: from there it goes to the store below.
    fn journalled(&self, below: &Profile) -> Option<Durability> {
        let kept = below.guarantees.durability_after_flush.min(Durability::PowerCut);
        self.path.as_ref().map(|_| kept)
    }

    pub(super) fn profile_over(&self, below: Profile) -> Profile {
        let durability = match self.ack {
            Ack::Journal => self.journalled(&below).unwrap_or(Durability::Nothing),
            Ack::Memory => Durability::Nothing,
            Ack::Through => below.guarantees.durability,
        };
        let most = self.journalled(&below).into_iter().chain([below.guarantees.durability]).max();
        let on_request = most.unwrap_or(durability).max(durability);
        let shared = below.guarantees.freshness != Freshness::Exclusive;
        let (atomic, verbatim) = (below.guarantees.atomic_batches, below.guarantees.verbatim);
        let largest = self.journal_bytes().0 / 2;
        let profile = Profile::layer(NAME, below).changed(|guarantees| {
            (guarantees.durability, guarantees.durability_on_request) = (durability, on_request);
            guarantees.conditions = Conditions::Value;
            guarantees.ingest = false;
            guarantees.counts = guarantees.counts.min(Counting::Estimated);
            if self.path.is_some() {
                let place = Place { name: NAME.into(), what: "journal".into(), sealed: false };
                guarantees.places.push(place);
                let limit = &mut guarantees.limits.value_bytes;
                *limit = Some(limit.map_or(largest, |limit| limit.min(largest)));
            }
        });
        let profile = match self.ack {
            Ack::Memory => profile.note(format!(
                "Writes are acknowledged in memory: a crash loses those of about the last {}, and more while the store below does not take them.",
                self.flush_after
            )),
            Ack::Journal | Ack::Through => profile,
        };
        let profile = if shared {
            profile.note("Conditions are checked against what this stack has acknowledged, and writes reach the store below later: what others write there meanwhile is overwritten.")
        } else {
            profile
        };
        let profile = if verbatim {
            profile
        } else {
            profile.note("The store below has rules of its own for what it keeps (`verbatim` is false), such as columns of a row: a write that it refuses is acknowledged all the same, and stops this layer when it is flushed. Check what is written before.")
        };
        let profile = match (self.open, &self.path) {
            (Opening::Later, Some(_)) => profile.note("A stack that stays open opens also while the store below is away, once it has been open over it; `open: wait` needs the store."),
            _ => profile,
        };
        if atomic {
            profile
        } else {
            profile.note("The store below takes one operation at a time: after a crash it may lack writes that are older than others that it has, until the stack is opened again.")
        }
    }

    /// How a batch is acknowledged that asks for that.
    pub(super) fn ack_for(&self, asked: Option<Durability>, below: &Profile) -> Ack {
        match asked {
            None => self.ack,
            Some(Durability::Nothing) => Ack::Memory,
            Some(asked) if self.journalled(below).is_some_and(|kept| kept >= asked) => Ack::Journal,
            Some(_) => Ack::Through,
        }
    }
}
