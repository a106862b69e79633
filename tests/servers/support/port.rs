//! Ports that stay ours.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

/// A free port of loopback, whose number plus 10,000 is free too (Redis Cluster talks there).
///
/// Not one that the system hands out (`bind` to 0): outgoing connections take their ports from the
/// same range. While a server is down, another connection could get its port, and a client that
/// tries again to reach it can even connect to itself.
pub(super) fn free() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = RandomState::new().hash_one(std::process::id()) as u16;
    for _ in 0..10_000 {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 10_000 + start.wrapping_add(step) % 12_000;
        if is_free(port) && is_free(port + 10_000) {
            return port;
        }
    }
    panic!("no port of loopback is free between 10,000 and 22,000");
}

fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}
