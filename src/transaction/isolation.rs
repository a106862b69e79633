//! How far a transaction is kept apart from others.

use std::fmt;

use crate::error::{Error, Result};
use crate::types::{Conditions, Guarantees};

/// What a transaction sees of others, and what its commit checks. Each level forbids what the one before it
/// forbids, and more. At every level a transaction sees what it wrote itself, and nothing of others that is not
/// committed; its commit is one atomic batch.
///
/// | | `ReadCommitted` | `RepeatableRead` | `Serializable` |
/// |---|---|---|---|
/// | dirty writes, dirty reads (G0, G1a, G1b, G1c) | no | no | no |
/// | two reads of a key differ, reads of two moments (fuzzy read, read skew, G-single) | yes | no | no |
/// | lost update | yes | no | no |
/// | write skew on keys that were read (G2-item) | yes | yes | no |
/// | a scan misses what another transaction adds to its range (phantom, G2) | yes | yes | yes, see below |
/// | a commit can meet a `Conflict` | no | yes | yes |
///
/// **What is compared is values.** A key on which somebody put back the bytes and the expiry that the transaction
/// knows counts as unchanged, as nobody wrote it. For `Serializable` this changes nothing: the transaction would
/// read at its commit what it read before, and do the same. For `RepeatableRead` what remains is a write skew,
/// which that level does not forbid. A program that must notice such a write keeps a counter in the value.
///
/// **Scans under `Serializable`**: each entry that a scan gave is required to be unchanged, as if it was read by its
/// key. Keys that others add to the range are not noticed: no store can check that a range is empty. All reads
/// of one transaction are of one moment, so it never sees a phantom itself; but two transactions that each scan a
/// range and then add to it may both commit. Where an invariant is on a range, let each transaction that scans it
/// to decide, and each that adds to it, change one more key, such as a count of its entries.
///
/// ```
/// use tierstack::backends::Memory;
/// use tierstack::{Isolation, Store};
///
/// let guarantees = Memory::new().profile().guarantees;
/// assert!(Isolation::Serializable.check(&guarantees).is_ok());
/// assert!(Isolation::Serializable > Isolation::RepeatableRead);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isolation {
    /// Each read sees what is committed at its time. The commit requires nothing, unless a
    /// [batch](super::Transaction::write) did: an update that another transaction made since a read is
    /// overwritten. For writes that belong together and depend on no read.
    ReadCommitted,
    /// All reads see the moment at which the transaction began: a snapshot. Of two transactions that
    /// write the same key at the same time, the first to commit wins: the commit requires that each key that it
    /// writes holds what it held at that moment. This is snapshot isolation, as `REPEATABLE READ` is in PostgreSQL.
    RepeatableRead,
    /// All reads see the moment at which the transaction began, and the commit requires that each key that
    /// was read still holds, or lacks, what was read. So transactions on keys have the results that they have
    /// one after the other, in the order of their commits. One that wrote nothing is of the moment at which it
    /// began. For scans see above.
    Serializable,
}

impl Isolation {
    /// Every level, the weakest first.
    pub const ALL: [Self; 3] = [Self::ReadCommitted, Self::RepeatableRead, Self::Serializable];

    /// Checks that a store can keep transactions apart to this degree.
    ///
    /// # Errors
    /// `Unsupported` that says what the store lacks.
    pub fn check(self, guarantees: &Guarantees) -> Result<()> {
        if !guarantees.writable {
            return Err(Error::unsupported(
                "a transaction writes, and this store takes no writes; read from a snapshot instead",
            ));
        }
        if !guarantees.atomic_batches {
            return Err(Error::unsupported(
                "a transaction is committed as one batch, and this store has no atomic batches",
            ));
        }
        if self == Self::ReadCommitted {
            return Ok(());
        }
        let lacks = if !guarantees.snapshots {
            "reads from a snapshot, and this store has none"
        } else if guarantees.conditions < Conditions::Value {
            "requires at its commit that values are unchanged, and this store cannot compare values"
        } else {
            return Ok(());
        };
        Err(Error::unsupported(format!(
            "a transaction with {self} {lacks}; this store offers READ COMMITTED"
        )))
    }
}

/// As in SQL.
impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ReadCommitted => "READ COMMITTED",
            Self::RepeatableRead => "REPEATABLE READ",
            Self::Serializable => "SERIALIZABLE",
        })
    }
}
