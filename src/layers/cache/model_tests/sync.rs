//! The parts of the core, as the model checker has them: each use of one is a place where another thread may come
//! between.

pub(super) use foldhash::quality::FixedState as RandomState;
pub(super) use loom::sync::atomic::{AtomicU64, Ordering};

/// All keys meet.
pub(super) const STRIPES: usize = 1;

#[derive(Debug, Default)]
pub(super) struct Mutex<T>(loom::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(super) fn lock(&self) -> loom::sync::MutexGuard<'_, T> {
        self.0.lock().unwrap()
    }
}

#[derive(Debug)]
pub(super) struct RwLock<T>(loom::sync::RwLock<T>);

impl<T> RwLock<T> {
    pub(super) fn new(value: T) -> Self {
        Self(loom::sync::RwLock::new(value))
    }

    pub(super) fn read(&self) -> loom::sync::RwLockReadGuard<'_, T> {
        self.0.read().unwrap()
    }

    pub(super) fn write(&self) -> loom::sync::RwLockWriteGuard<'_, T> {
        self.0.write().unwrap()
    }
}

/// The second mark is one too many.
pub(super) const MOST_PREFIXES: usize = 2;
