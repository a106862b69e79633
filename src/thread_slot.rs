//! A small number for each thread, so that what threads do often they do in a place of their own.
//!
//! No two threads that live at once have the same number, but for threads that are ending. A number is given
//! again once its thread has ended, and the next owner sees all that the one before wrote.

use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

use parking_lot::Mutex;

/// What a thread has that has given its number back: its thread-local values are being dropped.
const ENDING: usize = usize::MAX - 1;

struct Numbers {
    /// The least that was never given.
    next: usize,
    returned: BinaryHeap<Reverse<usize>>,
}

static NUMBERS: Mutex<Numbers> = Mutex::new(Numbers { next: 1, returned: BinaryHeap::new() });

/// Gives the number back when the thread ends.
struct Lease(usize);

impl Drop for Lease {
    fn drop(&mut self) {
        NUMBER.set(ENDING);
        NUMBERS.lock().returned.push(Reverse(self.0));
    }
}

// Next to the lease, as a value that has nothing to drop is found faster.
thread_local!(static NUMBER: Cell<usize> = const { Cell::new(0) });

/// The least number, from 1, that no other thread has.
pub(crate) fn number() -> usize {
    match NUMBER.get() {
        0 => lease(),
        number => number,
    }
}

#[cold]
fn lease() -> usize {
    thread_local!(static LEASE: Lease = {
        let mut numbers = NUMBERS.lock();
        Lease(match numbers.returned.pop() {
            Some(Reverse(number)) => number,
            None => {
                numbers.next += 1;
                numbers.next - 1
            }
        })
    });
    let number = LEASE.try_with(|lease| lease.0).unwrap_or(ENDING);
    NUMBER.set(number);
    number
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Barrier;
    use std::thread;

    use super::*;

    #[test]
    fn threads_that_live_at_once_have_numbers_of_their_own_and_leave_them_to_others() {
        const THREADS: usize = 20;
        let mut all = BTreeSet::new();
        for _ in 0..50 {
            let barrier = Barrier::new(THREADS);
            let numbers: BTreeSet<_> = thread::scope(|scope| {
                let mine = || {
                    let number = number();
                    barrier.wait();
                    assert_eq!(number, self::number());
                    number
                };
                let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(mine)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            assert_eq!(numbers.len(), THREADS);
            all.extend(numbers);
        }
        // Others of this process take some too.
        assert!(all.len() < 10 * THREADS, "{} numbers", all.len());
    }

    #[test]
    fn a_thread_that_ends_has_no_number() {
        struct Last(std::sync::mpsc::Sender<usize>);
        impl Drop for Last {
            fn drop(&mut self) {
                self.0.send(number()).unwrap();
            }
        }
        thread_local!(static LAST: Cell<Option<Last>> = const { Cell::new(None) });
        let (sender, receiver) = std::sync::mpsc::channel();
        let first = thread::spawn(move || {
            // Registered before the lease, so dropped behind or before it, as the platform likes.
            LAST.set(Some(Last(sender)));
            number()
        });
        let number = first.join().unwrap();
        assert!([number, ENDING].contains(&receiver.recv().unwrap()));
    }
}
