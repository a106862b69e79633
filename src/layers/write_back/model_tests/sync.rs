//! The parts of the core, as the model checker has them: each use of one is a place where another thread may come
//! between.

pub(super) use loom::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
pub(super) use loom::sync::{MutexGuard, RwLockReadGuard, RwLockWriteGuard};

/// All keys meet.
pub(super) const FEWEST_SLOTS: u64 = 1;

#[derive(Debug, Default)]
pub(super) struct Mutex<T>(loom::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(super) fn new(value: T) -> Self {
        Self(loom::sync::Mutex::new(value))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap()
    }
}

#[derive(Debug, Default)]
pub(super) struct RwLock<T>(loom::sync::RwLock<T>);

impl<T> RwLock<T> {
    pub(super) fn read(&self) -> RwLockReadGuard<'_, T> {
        self.0.read().unwrap()
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, T> {
        self.0.write().unwrap()
    }
}
