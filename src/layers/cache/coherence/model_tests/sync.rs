//! The parts of the core, as the model checker has them: each use of one is a place where another thread may come
//! between.

pub(super) use foldhash::quality::FixedState as RandomState;
pub(super) use loom::sync::atomic::{AtomicU64, Ordering};

/// All keys meet.
pub(super) const STRIPES: usize = 1;

#[derive(Debug, Default)]
pub(super) struct Mutex<T>(loom::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(super) fn new(value: T) -> Self {
        Self(loom::sync::Mutex::new(value))
    }

    pub(super) fn lock(&self) -> loom::sync::MutexGuard<'_, T> {
        self.0.lock().unwrap()
    }
}

#[derive(Debug)]
pub(super) struct Published<T>(loom::sync::Mutex<std::sync::Arc<T>>);

impl<T> Published<T> {
    pub(super) fn new(value: T) -> Self {
        Self(loom::sync::Mutex::new(std::sync::Arc::new(value)))
    }

    pub(super) fn get(&self) -> std::sync::Arc<T> {
        std::sync::Arc::clone(&self.0.lock().unwrap())
    }

    pub(super) fn publish(&self, value: T) {
        *self.0.lock().unwrap() = std::sync::Arc::new(value);
    }
}

/// The second prefix is one too many.
pub(super) const MOST_PREFIXES: usize = 2;
