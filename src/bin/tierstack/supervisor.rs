//! Telling systemd how far the service is. Elsewhere nobody is told.

use std::sync::OnceLock;
use std::time::Duration;

use sd_notify::NotifyState;

/// Without `NOTIFY_SOCKET` it does nothing, and a supervisor that is gone needs to know nothing.
fn tell(states: &[NotifyState<'_>]) {
    let _ = sd_notify::notify(states);
}

pub(crate) fn status(what: &str) {
    tell(&[NotifyState::Status(what)]);
}

pub(crate) fn ready(what: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(what)]);
}

/// As `Type=notify-reload` has it.
pub(crate) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
}

pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("ending what is under way")]);
}

/// The end may take so much longer.
pub(crate) fn extend(span: Duration) {
    let micros = u32::try_from(span.as_micros()).unwrap_or(u32::MAX);
    tell(&[NotifyState::ExtendTimeoutUsec(micros)]);
}

/// Tells that the service lives, once half of the time is over in which it must; never returns where nobody asks.
pub(crate) async fn watch() {
    static EVERY: OnceLock<Option<Duration>> = OnceLock::new();
    match EVERY.get_or_init(sd_notify::watchdog_enabled) {
        Some(every) => tokio::time::sleep(*every / 2).await,
        None => std::future::pending().await,
    }
    tell(&[NotifyState::Watchdog]);
}
