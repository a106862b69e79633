//! Progress on standard error: a bar on a terminal, a plain line every few seconds elsewhere.

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use tierstack::Stopwatch;

use crate::output;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Bytes,
    Entries,
}

impl Unit {
    fn words(self, number: u64) -> String {
        match self {
            Self::Bytes => output::bytes(number),
            Self::Entries => output::entries(number),
        }
    }
}

/// One long step.
pub(crate) struct Progress {
    what: String,
    unit: Unit,
    total: AtomicU64,
    done: AtomicU64,
    watch: Stopwatch,
    /// Seconds since the start at which the next plain line is due.
    due: AtomicU64,
    bar: Option<ProgressBar>,
}

const EVERY: u64 = 5;
const NO_TOTAL: u64 = u64::MAX;

impl Progress {
    /// Starts a step; `total` where it is known.
    pub(crate) fn new(what: impl Into<String>, total: Option<u64>, unit: Unit) -> Self {
        let what = what.into();
        let bar = std::io::stderr().is_terminal().then(|| bar(&what, total, unit));
        let total = AtomicU64::new(total.unwrap_or(NO_TOTAL));
        let (done, due) = (AtomicU64::new(0), AtomicU64::new(EVERY));
        Self { what, unit, total, done, watch: Stopwatch::new(), due, bar }
    }

    /// So much more is done.
    pub(crate) fn add(&self, more: u64) {
        let done = self.done.fetch_add(more, Ordering::Relaxed).saturating_add(more);
        self.show(done);
    }

    /// So much is done; `total` where it became known only now.
    pub(crate) fn set(&self, done: u64, total: Option<u64>) {
        if let Some(total) = total {
            self.expect(total);
        }
        self.done.store(done, Ordering::Relaxed);
        self.show(done);
    }

    /// So much there is to do, which became known only now.
    pub(crate) fn expect(&self, total: u64) {
        if self.total.swap(total, Ordering::Relaxed) != total
            && let Some(bar) = &self.bar
        {
            bar.set_length(total);
            bar.set_style(style(true, self.unit));
        }
    }

    /// What there is to do, where it is known.
    #[cfg(test)]
    pub(crate) fn expected(&self) -> Option<u64> {
        let total = self.total.load(Ordering::Relaxed);
        (total != NO_TOTAL).then_some(total)
    }

    /// How long the step has taken.
    pub(crate) fn elapsed(&self) -> Duration {
        self.watch.elapsed()
    }

    fn show(&self, done: u64) {
        if let Some(bar) = &self.bar {
            return bar.set_position(done);
        }
        let seconds = self.watch.elapsed().as_secs();
        let due = self.due.load(Ordering::Relaxed);
        let next = seconds + EVERY;
        let mine = seconds >= due
            && self.due.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if mine {
            self.plain(done, "");
        }
    }

    /// The step is over: takes the bar away, or prints the last plain line.
    pub(crate) fn finish(self) {
        match &self.bar {
            Some(bar) => bar.finish_and_clear(),
            None => {
                // A total may be an estimate; now the number is known.
                self.total.store(NO_TOTAL, Ordering::Relaxed);
                self.plain(self.done.load(Ordering::Relaxed), ", done");
            }
        }
    }

    fn plain(&self, done: u64, end: &str) {
        let total = self.total.load(Ordering::Relaxed);
        let of = if total == NO_TOTAL || total == done {
            String::new()
        } else {
            let percent = done.saturating_mul(100).checked_div(total).unwrap_or(100);
            format!(" of {} ({percent}%)", self.unit.words(total))
        };
        let (what, done) = (&self.what, self.unit.words(done));
        let elapsed = output::duration(self.watch.elapsed());
        // A closed standard error leaves no caller to tell.
        let _ = writeln!(std::io::stderr().lock(), "{what}: {done}{of}, {elapsed}{end}");
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn bar(what: &str, total: Option<u64>, unit: Unit) -> ProgressBar {
    let bar = total.map_or_else(ProgressBar::no_length, ProgressBar::new);
    bar.set_message(what.to_owned());
    bar.set_style(style(total.is_some(), unit));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

fn style(total: bool, unit: Unit) -> ProgressStyle {
    let template = match (total, unit) {
        (true, Unit::Bytes) => "{msg:24} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
        (false, Unit::Bytes) => "{msg:24} {spinner} {bytes} {bytes_per_sec} {elapsed}",
        (true, Unit::Entries) => "{msg:24} {bar:30} {human_pos}/{human_len} {per_sec} {eta}",
        (false, Unit::Entries) => "{msg:24} {spinner} {human_pos} {per_sec} {elapsed}",
    };
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
