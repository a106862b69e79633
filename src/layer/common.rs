//! What the stores of one config have in common, and what each of them has for itself.

use std::any::Any;
use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::error::Result;

/// What is of any type.
type Anything = dyn Any + Send + Sync;

/// Files or data that a layer or a backend needs for itself while it is open. Nothing else in the config can have
/// the same: neither another store, nor another part of the same store.
///
/// ```
/// use std::path::Path;
/// use tierstack::Claim;
///
/// let table = |name: &str| Claim::new("the SQLite file", Path::new("./data.db")).part(name);
/// assert!(table("orders").is_same(&table("orders")));
/// assert!(!table("orders").is_same(&table("users")));
/// ```
#[derive(Clone, Debug)]
pub struct Claim {
    what: &'static str,
    path: PathBuf,
    part: Option<String>,
    /// Whether everything in the folder belongs to it.
    whole: bool,
    /// Whether another store may have it too.
    common: bool,
}

impl Claim {
    /// What it is, such as `the folder of the database`, and where.
    #[must_use]
    pub fn new(what: &'static str, path: &Path) -> Self {
        Self { what, path: real(path), part: None, whole: false, common: false }
    }

    /// A place that is no path of this machine, such as a bucket.
    #[must_use]
    pub fn elsewhere(what: &'static str, place: impl Into<PathBuf>) -> Self {
        Self { what, path: place.into(), part: None, whole: false, common: false }
    }

    /// A folder with everything in it: nobody else can have a file or folder there.
    #[must_use]
    pub fn whole(mut self) -> Self {
        self.whole = true;
        self
    }

    /// Only a part of it, such as a table of a file: others may have other parts.
    #[must_use]
    pub fn part(mut self, part: impl Into<String>) -> Self {
        self.part = Some(part.into());
        self
    }

    /// Data that several stores may use at a time, such as objects in a bucket. Two such claims do not meet.
    #[must_use]
    pub fn common(mut self) -> Self {
        self.common = true;
        self
    }

    /// Whether both cannot be open at a time.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let parts_differ =
            matches!((&self.part, &other.part), (Some(one), Some(two)) if one != two);
        let met = self.path == other.path || self.lies_in(other) || other.lies_in(self);
        met && !parts_differ && !(self.common && other.common)
    }

    fn lies_in(&self, other: &Self) -> bool {
        other.whole && self.path != other.path && self.path.starts_with(&other.path)
    }

    /// What two claims have in common, in words: the inner one, and what it lies in.
    #[cfg(feature = "config")]
    pub(crate) fn met(&self, other: &Self) -> String {
        match (self.lies_in(other), other.lies_in(self)) {
            (true, _) => format!("{self}, which lies in {other}"),
            (_, true) => format!("{other}, which lies in {self}"),
            (false, false) => self.to_string(),
        }
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.what, self.path.display())
    }
}

/// The path without links, as far as it is there, and without `.` and `..`.
fn real(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut missing = Vec::new();
    for there in path.ancestors() {
        if let Ok(mut real) = there.canonicalize() {
            for part in missing.into_iter().rev() {
                match part {
                    Component::ParentDir => drop(real.pop()),
                    part => real.push(part),
                }
            }
            return real;
        }
        missing.extend(there.components().next_back());
    }
    path
}

/// What the stores over one shared backend have in common while at least one of them is open, such as a
/// database of which each opens a part.
///
/// ```
/// # tokio_test::block_on(async {
/// use std::sync::Arc;
/// use tierstack::Common;
///
/// struct Pool;
/// let common = Common::default();
/// let one = common.share(async { Ok(Arc::new(Pool)) }).await?;
/// let again = common.share(async { unreachable!("it is open") }).await?;
/// assert!(Arc::ptr_eq(&one, &again));
/// # Ok::<(), tierstack::Error>(()) }).unwrap();
/// ```
#[derive(Clone, Default)]
pub struct Common {
    /// Of every store.
    settings: Arc<[Arc<Anything>]>,
    slot: Slot,
}

/// Holds what is open, for as long as somebody else holds it.
pub(crate) type Slot = Arc<Mutex<Option<Weak<Anything>>>>;

impl Common {
    #[cfg(feature = "config")]
    pub(crate) fn new(settings: Arc<[Arc<Anything>]>, slot: Slot) -> Self {
        Self { settings, slot }
    }

    /// The settings of every store of the config that uses the backend, open or not.
    pub fn settings<C: 'static>(&self) -> impl Iterator<Item = &C> {
        self.settings.iter().filter_map(|settings| (**settings).downcast_ref())
    }

    /// What another store has opened and still holds, or what `open` gives. Stores over one backend are
    /// opened one after the other.
    ///
    /// # Errors
    /// As `open`.
    pub async fn share<T: Send + Sync + 'static>(
        &self,
        open: impl Future<Output = Result<Arc<T>>>,
    ) -> Result<Arc<T>> {
        let there = self.slot.lock().as_ref().and_then(Weak::upgrade);
        if let Some(there) = there.and_then(|there| there.downcast().ok()) {
            return Ok(there);
        }
        let opened = open.await?;
        let weak: Weak<T> = Arc::downgrade(&opened);
        *self.slot.lock() = Some(weak);
        Ok(opened)
    }
}

/// The number of stores: settings may hold what is not to be printed.
impl fmt::Debug for Common {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Common({} stores)", self.settings.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_place_is_the_same_by_every_path() {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| Claim::new("the folder", &folder.path().join(path));
        std::fs::create_dir(folder.path().join("there")).unwrap();
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink("there", folder.path().join("link")).unwrap();
            assert!(at("link/new").is_same(&at("there/new")));
        }
        assert!(at("./a").is_same(&at("a")));
        assert!(at("none/../a").is_same(&at("a")));
        assert!(at("a/").is_same(&at("a")));
        assert!(!at("a").is_same(&at("b")));
        assert!(!at("a").is_same(&at("a/b")));
        // The whole is also each of its parts.
        assert!(at("a").is_same(&at("a").part("x")));
        assert!(!at("a").part("y").is_same(&at("a").part("x")));
        // What lies in a folder that belongs to one alone.
        assert!(at("a").whole().is_same(&at("a/b")) && at("a/b").is_same(&at("a").whole()));
        assert!(!at("ab").is_same(&at("a").whole()));
        // Several may have it, but not together with one that needs it for itself.
        assert!(!at("a").common().is_same(&at("a").common()));
        assert!(!at("a").whole().common().is_same(&at("a/b").common()));
        assert!(at("a").whole().common().is_same(&at("a/b")));
    }
}
