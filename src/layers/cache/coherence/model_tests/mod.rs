//! The core of the cache under a model checker: every interleaving of a few threads, by `loom`.
//!
//! The other files of this room are the shipped ones, built of the checker's locks and atomics. What is around
//! them is small, and does in the same order what `Cache` does: [`World::get`] and [`World::write`]. The store
//! below is a register: what it answers is true at one moment between question and answer. Values are numbers in the
//! order in which the store below took them, so that an older one is a smaller one.

#[path = "../current_epoch.rs"]
#[expect(clippy::duplicate_mod, reason = "the same code, of other parts")]
#[allow(dead_code, reason = "the shipped code uses all of it")]
mod current_epoch;
#[path = "../epoch.rs"]
#[expect(clippy::duplicate_mod, reason = "the same code, of other parts")]
#[allow(dead_code, reason = "the shipped code uses all of it")]
mod epoch;
#[path = "../prefix_invalidation.rs"]
#[expect(clippy::duplicate_mod, reason = "the same code, of other parts")]
#[allow(dead_code, reason = "the shipped code uses all of it")]
mod prefix_invalidation;
#[path = "../protocol.rs"]
#[expect(clippy::duplicate_mod, reason = "the same code, of other parts")]
#[allow(dead_code, reason = "the shipped code uses all of it")]
mod protocol;
mod scenarios;
#[path = "../single_flight.rs"]
#[expect(clippy::duplicate_mod, reason = "the same code, of other parts")]
#[allow(dead_code, reason = "the shipped code uses all of it")]
mod single_flight;
mod sync;
#[path = "../unknown_outcomes.rs"]
#[expect(clippy::duplicate_mod, reason = "the same code, of other parts")]
mod unknown_outcomes;
#[path = "../versions.rs"]
#[expect(clippy::duplicate_mod, reason = "the same code, of other parts")]
#[allow(dead_code, reason = "the shipped code uses all of it")]
mod versions;
#[path = "../write_guard.rs"]
#[expect(clippy::duplicate_mod, reason = "the same code, of other parts")]
mod write_guard;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use loom::thread::{JoinHandle, spawn};

use self::current_epoch::Epochs;
use self::epoch::{Epoch, Mode};
use self::prefix_invalidation::Invalidated;
use self::protocol::{Admission, Coherence, Turn};
use self::single_flight::{InFlight, LoadEnd};
use self::sync::Mutex;
use self::versions::{StripeVersion, Ticket};
use crate::clock::{Clock, Timestamp};
use crate::types::Value;

/// How long a write with an unknown outcome is in doubt.
const DOUBT: Duration = Duration::from_secs(30);

/// Times that a thread is interrupted in an order that is tried. What needs more is not known to exist, and there
/// are too many of them. Two find everything that is broken on purpose.
const PREEMPTIONS: usize = 2;

/// Runs a scenario in every order of its threads.
fn explore(mode: Mode, scenario: impl Fn(&World) + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(PREEMPTIONS);
    model.max_branches = 10_000;
    model.check(move || {
        let world = World::new(mode);
        scenario(&world);
        // Whatever is kept, is not older than what was guaranteed.
        world.get(Below::Now);
    });
}

fn spawned(world: &World, act: fn(&World)) -> JoinHandle<()> {
    let world = World(Arc::clone(&world.0), Copied::default());
    spawn(move || act(&world))
}

/// Runs these threads to their end.
fn together<const N: usize>(world: &World, threads: [fn(&World); N]) {
    let threads = threads.map(|act| spawned(world, act));
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

/// How the store below answers a question.
#[derive(Clone, Copy, Debug)]
enum Below {
    Now,
    Later,
    /// As later, with an answer from before the reader began to wait.
    Early,
}

/// What the store below holds. That a key was deleted has a number as well, but is not kept.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    number: u64,
    deleted: bool,
}

/// The number of what is kept, and the epoch in which its load began.
type Kept = (u64, Epoch);

/// A cache of one key over a store, and the copy that its thread has of what is kept.
struct World(Arc<Parts>, Copied);

/// A copy, and what was seen before it was taken. Of one thread, so that no other comes between.
type Copied = parking_lot::Mutex<Option<(StripeVersion, Kept)>>;

struct Parts {
    below: Mutex<Held>,
    /// What the engine keeps.
    engine: Mutex<Option<Kept>>,
    coherence: Coherence,
    time: Arc<Time>,
    /// The least that may be read from now on.
    guaranteed: Mutex<u64>,
}

/// Time that a thread of the model moves.
#[derive(Debug, Default)]
struct Time(Mutex<Duration>);

#[async_trait]
impl Clock for Time {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(0)
    }

    fn monotonic(&self) -> Duration {
        *self.0.lock()
    }

    fn coarse(&self) -> Duration {
        self.monotonic()
    }

    async fn sleep(&self, _: Duration) {
        std::future::pending().await
    }
}

impl World {
    fn new(mode: Mode) -> Self {
        let time = Arc::new(Time::default());
        let clock = Arc::clone(&time) as Arc<dyn Clock>;
        let parts = Parts {
            below: Mutex::default(),
            engine: Mutex::default(),
            coherence: Coherence::new(clock, 0, DOUBT, Epochs::new(mode)),
            time,
            guaranteed: Mutex::default(),
        };
        Self(Arc::new(parts), Copied::default())
    }

    fn guarantee(&self, number: u64) {
        let mut guaranteed = self.0.guaranteed.lock();
        *guaranteed = number.max(*guaranteed);
    }

    /// Reads, and checks that the answer is no older than what was guaranteed before the question. From the
    /// answer on, nobody may get an older one.
    fn get(&self, below: Below) -> u64 {
        let guaranteed = *self.0.guaranteed.lock();
        let check = |number| {
            assert!(number >= guaranteed, "{number} was read after {guaranteed} was guaranteed");
            self.guarantee(number);
            number
        };
        if let Some(kept) = self.lookup() {
            return check(kept);
        }
        match below {
            Below::Now => {
                let ticket = self.0.coherence.ticket(KEY);
                let held = self.ask();
                self.install(held, ticket);
                check(held.number)
            }
            Below::Later => self.wait(None, check),
            Below::Early => {
                let (ticket, is_loading) = self.0.coherence.ticket_and_load(KEY);
                self.wait((!is_loading).then(|| (ticket, self.ask())), check)
            }
        }
    }

    /// Joins a load, or runs one, with what was asked already where nothing has concerned the key since.
    fn wait(&self, asked: Option<(Ticket, Held)>, check: impl Fn(u64) -> u64) -> u64 {
        match self.0.coherence.join_or_lead(KEY, || Some(())) {
            Admission::Join(guard) => {
                check(number_of(&loom::future::block_on(guard.in_flight().ended())))
            }
            Admission::Lead(guard, ticket, ()) => {
                let asked = asked.filter(|(before, _)| *before == ticket).map(|(_, held)| held);
                self.run_load(guard.in_flight().clone(), ticket, asked, check)
            }
            Admission::Full => panic!("there is room"),
        }
    }

    fn lookup(&self) -> Option<u64> {
        let looked = self.0.coherence.epochs.now();
        let served = |kept: &Kept| self.0.coherence.epochs.serve(looked, kept.1, KEY);
        self.find(served).filter(served).map(|(number, _)| number)
    }

    /// A copy that may be served, or what the engine has, which is copied.
    fn find(&self, served: impl Fn(&Kept) -> bool) -> Option<Kept> {
        let version = self.0.coherence.version(KEY);
        if version.is_written() {
            return *self.0.engine.lock();
        }
        let mut copy = self.1.lock();
        let copied = copy.filter(|(copied, kept)| *copied == version && served(kept));
        if let Some((_, kept)) = copied {
            return Some(kept);
        }
        let kept = (*self.0.engine.lock())?;
        *copy = Some((version, kept));
        Some(kept)
    }

    fn ask(&self) -> Held {
        *self.0.below.lock()
    }

    fn install(&self, held: Held, ticket: Ticket) {
        if !held.deleted {
            let keep = || *self.0.engine.lock() = Some((held.number, ticket.epoch));
            self.0.coherence.if_unchanged(ticket, KEY, keep);
        }
    }

    /// Asks for the key, and leaves before the turn of the load has come.
    fn leave(&self) {
        let lookup = self.0.coherence.join_or_lead(KEY, || Some(()));
        let Admission::Lead(guard, ticket, ()) = lookup else { return };
        let (in_flight, pass) = (guard.in_flight().clone(), |number| number);
        drop(guard);
        let wanted = match self.0.coherence.turn(KEY, &in_flight) {
            Turn::Wanted => Some((in_flight, ticket)),
            Turn::Next(next, ticket) => Some((next, ticket)),
            Turn::Over => None,
        };
        if let Some((in_flight, ticket)) = wanted {
            self.run_load(in_flight, ticket, None, pass);
        }
    }

    /// Loads again what is kept, unless somebody does.
    fn refresh(&self) {
        if let Some((in_flight, ticket, ())) = self.0.coherence.lead_if_quiet(KEY, || Some(())) {
            self.run_load(in_flight, ticket, None, |number| number);
        }
    }

    /// The task of a load, run by the thread that leads. It has its own answer before it goes on to what others
    /// wait for.
    fn run_load(
        &self,
        mut in_flight: InFlight,
        mut ticket: Ticket,
        mut asked: Option<Held>,
        check: impl Fn(u64) -> u64,
    ) -> u64 {
        let mut own = None;
        loop {
            let held = asked.take().unwrap_or_else(|| self.ask());
            self.install(held, ticket);
            let next = self.0.coherence.unregister(KEY, &in_flight);
            in_flight.tell(LoadEnd::Alone(Ok(Some(value_of(held.number)))));
            let answer = *own.get_or_insert_with(|| check(held.number));
            match next {
                Some(next) => (in_flight, ticket) = next,
                None => return answer,
            }
        }
    }

    /// The store below takes a write.
    fn take(&self, deleted: bool) -> u64 {
        let mut below = self.0.below.lock();
        *below = Held { number: below.number + 1, deleted };
        below.number
    }

    fn forget(&self) {
        *self.0.engine.lock() = None;
    }

    /// A write through the cache, which is acknowledged when this returns.
    fn write(&self, deletes: bool) {
        let writing = self.0.coherence.begin_write([KEY].into_iter());
        self.forget();
        let number = self.take(deletes);
        writing.settle();
        self.guarantee(number);
    }

    /// A write through the cache that keeps what was written.
    fn write_and_keep(&self) {
        let writing = self.0.coherence.begin_write([KEY].into_iter());
        self.forget();
        let number = self.take(false);
        writing.keep(KEY, |epoch| *self.0.engine.lock() = Some((number, epoch)));
        writing.settle();
        self.guarantee(number);
    }

    /// A write that the store below refuses.
    fn refused(&self) {
        let writing = self.0.coherence.begin_write([KEY].into_iter());
        self.forget();
        writing.settle();
    }

    /// A write whose future is dropped, or that fails, before the store below has taken it.
    fn abandoned(&self) {
        let writing = self.0.coherence.begin_write([KEY].into_iter());
        self.forget();
        drop(writing);
    }

    /// Somebody else changes the key, and it is reported.
    fn reported(&self) {
        let number = self.take(false);
        let writing = self.0.coherence.begin_write([KEY].into_iter());
        self.forget();
        writing.settle();
        self.guarantee(number);
    }

    /// Somebody else changes any keys, and that is reported.
    fn all_reported(&self) {
        let number = self.take(false);
        self.0.coherence.epochs.begin(Mode::Keeping);
        self.forget();
        self.guarantee(number);
    }

    /// Somebody else changes the key, and its prefix is invalidated. What a sweep does to copies is not modelled:
    /// those that have some are not here.
    fn prefix_invalidated(&self) {
        let number = self.take(false);
        self.invalidate_prefix(KEY);
        self.guarantee(number);
    }

    fn invalidate_prefix(&self, prefix: &[u8]) {
        let epochs = &self.0.coherence.epochs;
        match epochs.invalidate_prefix(prefix) {
            Invalidated::Done => {}
            Invalidated::Everything => self.forget(),
            Invalidated::Full(prefixes) => {
                self.0.coherence.wait_for_keepers();
                let mut engine = self.0.engine.lock();
                *engine = engine.filter(|(_, began)| !prefixes.covers(*began, KEY));
                drop(engine);
                epochs.swept(&prefixes);
            }
        }
    }

    /// A run is taken.
    fn ingest(&self) {
        let writing = self.0.coherence.begin_write_all();
        self.0.coherence.epochs.renew();
        self.forget();
        let number = self.take(false);
        writing.settle();
        self.guarantee(number);
    }
}

const KEY: &[u8] = b"k";

fn value_of(number: u64) -> Value {
    Value::new(number.to_be_bytes().to_vec())
}

fn number_of(ended: &LoadEnd) -> u64 {
    let LoadEnd::Alone(Ok(Some(value))) = ended else { panic!("{ended:?}") };
    u64::from_be_bytes(value.bytes[..].try_into().unwrap())
}
