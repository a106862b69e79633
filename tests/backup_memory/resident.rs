//! The memory of this process, as the operating system sees it: of all threads, and of libraries in C.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// A field of `/proc/self/status`, in bytes.
fn status(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    let number = line.trim_start_matches(':').trim().strip_suffix(" kB").unwrap();
    number.parse::<u64>().unwrap() << 10
}

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// What is taken from now on.
pub struct Taken {
    before: u64,
    _alone: MutexGuard<'static, ()>,
}

impl Taken {
    pub fn from_now_on() -> Self {
        let alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        Self { before: status("VmRSS"), _alone: alone }
    }

    /// Asserts that the process never had more than that many bytes in addition to what it had before.
    pub fn assert_below(&self, most: u64, doing: &str) {
        let taken = status("VmHWM").saturating_sub(self.before);
        assert!(taken < most, "{doing}: {} MiB instead of {} MiB", taken >> 20, most >> 20);
    }
}

#[test]
fn what_other_threads_take_is_seen() {
    let taken = Taken::from_now_on();
    let (most, now) = (status("VmHWM"), status("VmRSS"));
    let size = (most - now) as usize + (64 << 20);
    std::thread::spawn(move || std::hint::black_box(vec![1u8; size]).len()).join().unwrap();
    assert!(status("VmHWM") >= taken.before + (60 << 20), "{most} {now}");
}
