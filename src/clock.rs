//! Time, read in one place.
//!
//! Everything that waits, expires or measures asks a [`Clock`], so that a test can move time by hand
//! ([`ManualClock`]) and nothing else of the crate reads the machine's clocks.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
#[cfg(target_os = "linux")]
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

/// A moment of wall-clock time, in milliseconds since the Unix epoch (UTC).
///
/// Prints as RFC 3339. A year after 9999, which RFC 3339 does not have, is written as ISO 8601 and JavaScript do, with
/// a sign and at least six digits: `+012345-01-31T12:00:00Z`. Every moment that is printed can be read again.
///
/// ```
/// use std::time::Duration;
/// use tierstack::Timestamp;
///
/// let at = Timestamp::from_millis(1_700_000_000_000);
/// assert_eq!(at.to_string(), "2023-11-14T22:13:20Z");
/// assert_eq!("2023-11-14T22:13:20Z".parse(), Ok(at));
/// assert_eq!((at + Duration::from_secs(1)).since(at), Duration::from_secs(1));
/// ```
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The moment that many milliseconds after the Unix epoch.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// How much later this moment is than another; zero if it is earlier.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Add<Duration> for Timestamp {
    type Output = Self;

    /// Saturates at the end of time.
    fn add(self, span: Duration) -> Self {
        let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(millis))
    }
}

/// The calendar repeats itself after 400 years: 146,097 days, in milliseconds.
const CYCLE_MILLIS: u64 = 146_097 * 86_400_000;
const CYCLE_YEARS: u64 = 400;

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The calendar of `jiff` ends in December 9999. A later moment is written as one of the years 1970 to
        // 2369, with its own year.
        let written = |millis: u64| {
            let millis = i64::try_from(millis).map_err(|_| fmt::Error)?;
            jiff::Timestamp::from_millisecond(millis).map_err(|_| fmt::Error)
        };
        if let Ok(time) = written(self.0) {
            return time.fmt(f);
        }
        let time = written(self.0 % CYCLE_MILLIS)?.to_string();
        let (year, rest) = time.split_at_checked(4).ok_or(fmt::Error)?;
        let year: u64 = year.parse().map_err(|_| fmt::Error)?;
        match year + self.0 / CYCLE_MILLIS * CYCLE_YEARS {
            year @ ..=9999 => write!(f, "{year}{rest}"),
            year => write!(f, "+{year:06}{rest}"),
        }
    }
}

impl std::str::FromStr for Timestamp {
    type Err = String;

    /// Reads RFC 3339, such as `2026-01-31T12:00:00Z`, and what [`Display`](fmt::Display) prints of later years.
    fn from_str(text: &str) -> Result<Self, String> {
        let malformed =
            || format!("'{text}' is not a time; write RFC 3339, such as 2026-01-31T12:00:00Z");
        let too_late =
            || format!("'{text}' is after the last time that can be stored, {}", Self(u64::MAX));
        let (cycles, near) = within_jiff(text).unwrap_or((0, text.into()));
        let time: jiff::Timestamp = near.parse().map_err(|_| malformed())?;
        let millis = u64::try_from(time.as_millisecond())
            .map_err(|_| format!("'{text}' is before 1970, the first year that can be stored"))?;
        let cycles = cycles.checked_mul(CYCLE_MILLIS);
        cycles.and_then(|past| past.checked_add(millis)).map(Self).ok_or_else(too_late)
    }
}

/// A time of the year 9999 or later as one of the years 2000 to 2399, and the cycles that it lost.
fn within_jiff(text: &str) -> Option<(u64, Cow<'_, str>)> {
    let (year, rest) = match text.strip_prefix('+') {
        Some(text) => text.split_at_checked(text.find('-').filter(|at| (4..=9).contains(at))?)?,
        None => text.split_at_checked(4).filter(|(year, _)| *year == "9999")?,
    };
    // `parse` takes a sign.
    let year: u64 = year.parse().ok().filter(|_| year.bytes().all(|byte| byte.is_ascii_digit()))?;
    let cycles = year.checked_sub(2000)? / CYCLE_YEARS;
    Some((cycles, Cow::Owned(format!("{}{rest}", year - cycles * CYCLE_YEARS))))
}

/// Where time comes from.
///
/// ```
/// # tokio_test::block_on(async {
/// use std::time::Duration;
/// use tierstack::{Clock, ManualClock};
///
/// // What waits for an hour is tested without waiting.
/// let clock = ManualClock::new();
/// let hour = Duration::from_secs(3600);
/// tokio::join!(clock.sleep(hour), async { clock.advance(hour) });
/// assert_eq!(clock.monotonic(), hour);
/// # Ok::<(), tierstack::Error>(()) }).unwrap();
/// ```
#[async_trait]
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// The wall-clock time. May jump when the machine's clock is set.
    fn now(&self) -> Timestamp;

    /// Time since an arbitrary fixed origin. Never goes back. Time in which the machine sleeps counts, on Linux and on
    /// macOS.
    fn monotonic(&self) -> Duration;

    /// Like [`monotonic`](Self::monotonic), of the same origin, cheaper to read, and behind it by up to
    /// 10 milliseconds. For expiry checks on hot paths.
    fn coarse(&self) -> Duration;

    /// Returns once that much time has passed. Dropping the future cancels the wait. Time in which the machine sleeps may
    /// be added.
    async fn sleep(&self, span: Duration);
}

/// The machine's clocks.
///
/// ```
/// # tokio_test::block_on(async {
/// use tierstack::backends::Memory;
/// use tierstack::{Clock, Read, StoreExt, SystemClock, Value};
///
/// let store = Memory::with_clock(SystemClock::shared());
/// store.put("session", Value::new("Ada").expiring_at(SystemClock.now())).await?;
/// assert_eq!(store.get(b"session").await?, None, "gone from this moment on");
/// # Ok::<(), tierstack::Error>(()) }).unwrap();
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl SystemClock {
    /// The system's clock, ready to be handed to a store.
    #[must_use]
    pub fn shared() -> Arc<dyn Clock> {
        Arc::new(Self)
    }
}

#[async_trait]
impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn monotonic(&self) -> Duration {
        monotonic(false)
    }

    fn coarse(&self) -> Duration {
        monotonic(true)
    }

    async fn sleep(&self, span: Duration) {
        tokio::time::sleep(span).await;
    }
}

/// Linux keeps a clock that the timer tick advances: a fifth of the cost of the exact one. It does not move while the
/// machine sleeps.
#[cfg(target_os = "linux")]
fn monotonic(coarse: bool) -> Duration {
    static SLEPT: Slept = Slept::new();
    if !coarse {
        return read(rustix::time::ClockId::Boottime);
    }
    let tick = read(rustix::time::ClockId::MonotonicCoarse);
    SLEPT.added(tick, || {
        // In this order, so that a thread that is interrupted between the two finds too little, and never too much.
        let all = read(rustix::time::ClockId::Boottime);
        nanos(all) - nanos(read(rustix::time::ClockId::Monotonic))
    })
}

#[cfg(any(target_os = "linux", target_vendor = "apple"))]
fn read(id: rustix::time::ClockId) -> Duration {
    let time = rustix::time::clock_gettime(id);
    // Both parts are never negative: the clock starts at zero when the machine does.
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The nanoseconds of a time since the start of a machine.
#[cfg(target_os = "linux")]
fn nanos(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

/// How long the machine has slept, looked up once in each tick of the cheap clock.
#[cfg(target_os = "linux")]
struct Slept {
    tick: AtomicI64,
    nanos: AtomicI64,
}

#[cfg(target_os = "linux")]
impl Slept {
    const fn new() -> Self {
        Self { tick: AtomicI64::new(-1), nanos: AtomicI64::new(i64::MIN) }
    }

    /// The time of the tick, and what the machine has slept.
    fn added(&self, tick: Duration, look: impl FnOnce() -> i64) -> Duration {
        let tick = nanos(tick);
        if self.tick.load(Ordering::Acquire) != tick {
            // It never becomes less, and of what was found it is the most that is right.
            self.nanos.fetch_max(look(), Ordering::Relaxed);
            self.tick.store(tick, Ordering::Release);
        }
        let nanos = tick.saturating_add(self.nanos.load(Ordering::Relaxed));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
    }
}

/// Goes on while the machine sleeps.
#[cfg(target_vendor = "apple")]
fn monotonic(_coarse: bool) -> Duration {
    read(rustix::time::ClockId::Monotonic)
}

#[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
fn monotonic(_coarse: bool) -> Duration {
    static ORIGIN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    ORIGIN.get_or_init(Instant::now).elapsed()
}

/// Measures how long something took, for progress and throughput; never for decisions.
///
/// ```
/// use tierstack::Stopwatch;
///
/// let watch = Stopwatch::new();
/// let entries = (0..1000).filter(|number| number % 7 == 0).count();
/// let seconds = watch.elapsed().as_secs_f64();
/// assert!(entries as f64 / seconds > 0.0, "entries a second");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts now.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "a default that reads the clock surprises")]
    pub fn new() -> Self {
        Self(Instant::now())
    }

    /// Time since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// A clock that does not move until a test moves it.
///
/// ```
/// use std::time::Duration;
/// use tierstack::{Clock, ManualClock};
///
/// let clock = ManualClock::new();
/// let before = clock.now();
/// clock.advance(Duration::from_secs(60));
/// assert_eq!(clock.now().since(before), Duration::from_secs(60));
/// ```
#[derive(Clone, Debug, Default)]
pub struct ManualClock(Arc<Mutex<ManualState>>);

#[derive(Debug, Default)]
struct ManualState {
    elapsed: Duration,
    /// How far the wall clock was set forward by hand, in addition to the time that passed.
    jumped: Duration,
    sleepers: Vec<(Duration, oneshot::Sender<()>)>,
}

/// 2024-01-01T00:00:00Z: tests start at a moment that looks like one.
const MANUAL_START: Timestamp = Timestamp::from_millis(1_704_067_200_000);

impl ManualClock {
    /// A clock at 2024-01-01T00:00:00Z.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets time pass, and wakes the tasks that slept until then.
    pub fn advance(&self, span: Duration) {
        let mut state = self.0.lock();
        state.elapsed += span;
        let elapsed = state.elapsed;
        let (due, waiting) = std::mem::take(&mut state.sleepers)
            .into_iter()
            .partition(|(until, _)| *until <= elapsed);
        state.sleepers = waiting;
        drop(state);
        let due: Vec<(Duration, oneshot::Sender<()>)> = due;
        for (_, wake) in due {
            // The sleeper may be gone; then nobody waits.
            let _ = wake.send(());
        }
    }

    /// Sets the wall clock forward without letting time pass.
    pub fn jump(&self, span: Duration) {
        self.0.lock().jumped += span;
    }

    /// How many tasks sleep.
    #[must_use]
    pub fn sleepers(&self) -> usize {
        self.0.lock().sleepers.len()
    }
}

#[async_trait]
impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        let state = self.0.lock();
        MANUAL_START + state.elapsed + state.jumped
    }

    fn monotonic(&self) -> Duration {
        self.0.lock().elapsed
    }

    fn coarse(&self) -> Duration {
        self.0.lock().elapsed
    }

    async fn sleep(&self, span: Duration) {
        if span.is_zero() {
            return;
        }
        let wake = {
            let mut state = self.0.lock();
            let (wake, woken) = oneshot::channel();
            let until = state.elapsed + span;
            state.sleepers.retain(|(_, sleeper)| !sleeper.is_closed());
            state.sleepers.push((until, wake));
            woken
        };
        // An error means that the clock is gone; then time passes no more, and no task waits for it.
        let _ = wake.await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_sleeper_wakes_when_its_time_has_come() {
        let clock = ManualClock::new();
        let mut sleep = tokio_test::task::spawn(clock.sleep(Duration::from_secs(2)));
        tokio_test::assert_pending!(sleep.poll());
        clock.advance(Duration::from_secs(1));
        tokio_test::assert_pending!(sleep.poll());
        clock.advance(Duration::from_secs(1));
        tokio_test::assert_ready!(sleep.poll());
    }

    #[test]
    fn the_coarse_clock_is_close_behind_the_exact_one() {
        let clock = SystemClock;
        let coarse = clock.coarse();
        let exact = clock.monotonic();
        assert!(coarse <= exact);
        assert!(exact - coarse < Duration::from_secs(5), "of the same origin");
    }

    #[test]
    fn every_moment_that_is_printed_can_be_read_again() {
        let known = [
            (0, "1970-01-01T00:00:00Z"),
            (1_700_000_000_123, "2023-11-14T22:13:20.123Z"),
            (253_402_207_200_999, "9999-12-30T22:00:00.999Z"),
            (253_402_207_201_000, "9999-12-30T22:00:01Z"),
            (253_402_300_799_000, "9999-12-31T23:59:59Z"),
            (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
            (253_402_300_800_000, "+010000-01-01T00:00:00Z"),
            (1_000_000_000_000_001, "+033658-09-27T01:46:40.001Z"),
            (8_640_000_000_000_000, "+275760-09-13T00:00:00Z"),
            (u64::MAX, "+584556019-04-03T14:25:51.615Z"),
        ];
        for (millis, text) in known {
            assert_eq!(Timestamp(millis).to_string(), text);
            assert_eq!(text.parse(), Ok(Timestamp(millis)));
        }
        let mut millis = 1_u64;
        while let Some(next) = millis.checked_mul(3) {
            assert_eq!(Timestamp(millis).to_string().parse(), Ok(Timestamp(millis)));
            millis = next;
        }
        assert_eq!("9999-12-31T23:59:59+00:01".parse(), Ok(Timestamp(253_402_300_739_000)));
        assert_eq!("+2026-01-31T12:00:00Z".parse(), "2026-01-31T12:00:00Z".parse::<Timestamp>());
        assert_eq!("9999-12-31T23:59:59-01:00".parse(), Ok(Timestamp(253_402_304_399_000)));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for (text, why) in [
            ("soon", "is not a time"),
            ("+", "is not a time"),
            ("+-1-01-01T00:00:00Z", "is not a time"),
            ("++12345-01-01T00:00:00Z", "is not a time"),
            ("+012345-02-30T00:00:00Z", "is not a time"),
            ("9999-13-01T00:00:00Z", "is not a time"),
            ("+584556020-01-01T00:00:00Z", "is after the last time that can be stored"),
            ("1969-12-31T23:59:59Z", "is before 1970"),
            ("-000044-03-15T12:00:00Z", "is before 1970"),
        ] {
            let said = text.parse::<Timestamp>().unwrap_err();
            assert!(said.contains(why), "{said}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_the_machine_sleeps_is_added_at_the_next_tick_and_never_taken_back() {
        let second = Duration::from_secs;
        let slept = Slept::new();
        assert_eq!(slept.added(second(10), || 0), second(10));
        assert_eq!(slept.added(second(10), || panic!("once in a tick")), second(10));
        let hour = 3_600_000_000_000;
        assert_eq!(slept.added(second(11), || hour), second(3611));
        // A thread that was interrupted while it looked.
        assert_eq!(slept.added(second(12), || hour - 5), second(3612));
        assert_eq!(slept.added(second(13), || hour), second(3613));
    }

    #[test]
    fn neither_clock_goes_back() {
        let clock = SystemClock;
        let threads: Vec<_> = (0..4)
            .map(|_| {
                std::thread::spawn(move || {
                    let mut last = (Duration::ZERO, Duration::ZERO);
                    for _ in 0..50_000 {
                        let now = (clock.coarse(), clock.monotonic());
                        assert!(now.0 >= last.0 && now.1 >= last.1 && now.0 <= now.1);
                        last = now;
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}
