//! The log on standard error.

use std::io::IsTerminal;
use std::sync::OnceLock;

use tracing_subscriber::EnvFilter;

type Replace = Box<dyn Fn(EnvFilter) + Send + Sync>;
/// Replaces what is logged.
static REPLACE: OnceLock<Replace> = OnceLock::new();

/// Events that `RUST_LOG` asks for; when it is not set, warnings of the library. What libraries below it
/// warn of, such as a connection that is replaced, is in its errors where it matters.
pub(crate) fn to_stderr() {
    let filter = asked_for().unwrap_or_else(|| of_the_library("warn"));
    let colours = std::io::stderr().is_terminal();
    let log = tracing_subscriber::fmt().with_ansi(colours).with_writer(std::io::stderr);
    let log = log.with_env_filter(filter).with_filter_reloading();
    let handle = log.reload_handle();
    log.init();
    // It fails once the log has gone, which it never does.
    let replace = Box::new(move |filter| drop(handle.reload(filter)));
    drop(REPLACE.set(replace));
}

/// Logs events of that level and those before it from now on, unless `RUST_LOG` asks for others.
#[cfg(feature = "serve")]
pub(crate) fn set_level(level: &str) {
    if let (None, Some(replace)) = (asked_for(), REPLACE.get()) {
        replace(of_the_library(level));
    }
}

fn asked_for() -> Option<EnvFilter> {
    let wanted = std::env::var(EnvFilter::DEFAULT_ENV).ok()?;
    Some(EnvFilter::builder().parse_lossy(wanted))
}

fn of_the_library(level: &str) -> EnvFilter {
    EnvFilter::builder().parse_lossy(format!("tierstack={level}"))
}
