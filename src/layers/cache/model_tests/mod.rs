//! The core of the cache under a model checker: every interleaving of a few threads, by `loom`.
//!
//! `stripes`, `writing`, `doubts`, `era`, `marks` and `flight` are the shipped files, built of the checker's locks and atomics. What stands around
//! them is small, and does in the same order what `Cache` does: [`World::get`] and [`World::write`]. The store
//! below is a register: what it answers is true at one moment between question and answer. Values are numbers in the
//! order in which the store below took them, so that an older one is a smaller one.

#[path = "../doubts.rs"]
#[expect(clippy::duplicate_mod, reason = "the same code, of other parts")]
mod doubts;
#[path = "../era.rs"]
#[expect(clippy::duplicate_mod, reason = "the same code, of other parts")]
#[allow(dead_code, reason = "the shipped code uses all of it")]
mod era;
#[path = "../flight.rs"]
#[expect(clippy::duplicate_mod, reason = "the same code, of other parts")]
#[allow(dead_code, reason = "the shipped code uses all of it")]
mod flight;
#[path = "../marks.rs"]
#[expect(clippy::duplicate_mod, reason = "the same code, of other parts")]
#[allow(dead_code, reason = "the shipped code uses all of it")]
mod marks;
mod scenarios;
#[path = "../stripes.rs"]
#[expect(clippy::duplicate_mod, reason = "the same code, of other parts")]
#[allow(dead_code, reason = "the shipped code uses all of it")]
mod stripes;
mod sync;
#[path = "../writing.rs"]
#[expect(clippy::duplicate_mod, reason = "the same code, of other parts")]
mod writing;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use loom::thread::{JoinHandle, spawn};

use self::era::{Era, Eras, Mode};
use self::flight::{Flight, Landed};
use self::marks::Marked;
use self::stripes::{Lookup, Seen, Stripes, Ticket, Turn};
use self::sync::Mutex;
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
        // Whatever is kept, is not older than what was promised.
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
}

/// What the store below holds. That a key was deleted has a number as well, but is not kept.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    number: u64,
    deleted: bool,
}

/// The number of what is kept, and the era in which its load began.
type Kept = (u64, Era);

/// A cache of one key over a store, and the copy that its thread has of what is kept.
struct World(Arc<Parts>, Copied);

/// A copy, and what was seen before it was taken. Of one thread, so that no other comes between.
type Copied = parking_lot::Mutex<Option<(Seen, Kept)>>;

struct Parts {
    below: Mutex<Held>,
    /// What the engine keeps.
    engine: Mutex<Option<Kept>>,
    stripes: Stripes,
    time: Arc<Time>,
    /// The least that may be read from now on.
    promised: Mutex<u64>,
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
            stripes: Stripes::new(clock, 0, DOUBT, Eras::new(mode)),
            time,
            promised: Mutex::default(),
        };
        Self(Arc::new(parts), Copied::default())
    }

    fn promise(&self, number: u64) {
        let mut promised = self.0.promised.lock();
        *promised = number.max(*promised);
    }

    /// Reads, and checks that the answer is no older than what was promised before the question. From the
    /// answer on, nobody may get an older one.
    fn get(&self, below: Below) -> u64 {
        let promised = *self.0.promised.lock();
        let check = |number| {
            assert!(number >= promised, "{number} was read after {promised} was promised");
            self.promise(number);
            number
        };
        if let Some(kept) = self.lookup() {
            return check(kept);
        }
        match below {
            Below::Now => {
                let ticket = self.0.stripes.ticket(KEY);
                let held = self.ask();
                self.install(held, ticket);
                check(held.number)
            }
            Below::Later => match self.0.stripes.join_or_lead(KEY, || Some(())) {
                Lookup::Join(seat) => {
                    check(number_of(&loom::future::block_on(seat.flight().landed())))
                }
                Lookup::Lead(seat, ticket, ()) => self.fly(seat.flight().clone(), ticket, check),
                Lookup::Full => panic!("there is room"),
            },
        }
    }

    fn lookup(&self) -> Option<u64> {
        let looked = self.0.stripes.eras.now();
        let served = |kept: &Kept| self.0.stripes.eras.serve(looked, kept.1, KEY);
        self.find(served).filter(served).map(|(number, _)| number)
    }

    /// A copy that may be served, or what the engine has, which is copied.
    fn find(&self, served: impl Fn(&Kept) -> bool) -> Option<Kept> {
        let seen = self.0.stripes.seen(KEY);
        if seen.is_written() {
            return *self.0.engine.lock();
        }
        let mut copy = self.1.lock();
        let copied = copy.filter(|(copied, kept)| *copied == seen && served(kept));
        if let Some((_, kept)) = copied {
            return Some(kept);
        }
        let kept = (*self.0.engine.lock())?;
        *copy = Some((seen, kept));
        Some(kept)
    }

    fn ask(&self) -> Held {
        *self.0.below.lock()
    }

    fn install(&self, held: Held, ticket: Ticket) {
        if !held.deleted {
            let keep = || *self.0.engine.lock() = Some((held.number, ticket.era));
            self.0.stripes.if_unchanged(ticket, KEY, keep);
        }
    }

    /// Asks for the key, and leaves before the turn of the load has come.
    fn leave(&self) {
        let lookup = self.0.stripes.join_or_lead(KEY, || Some(()));
        let Lookup::Lead(seat, ticket, ()) = lookup else { return };
        let (flight, pass) = (seat.flight().clone(), |number| number);
        drop(seat);
        let wanted = match self.0.stripes.turn(KEY, &flight) {
            Turn::Wanted => Some((flight, ticket)),
            Turn::Next(next, ticket) => Some((next, ticket)),
            Turn::Over => None,
        };
        if let Some((flight, ticket)) = wanted {
            self.fly(flight, ticket, pass);
        }
    }

    /// Loads again what is kept, unless somebody does.
    fn refresh(&self) {
        if let Some((flight, ticket, ())) = self.0.stripes.lead_if_quiet(KEY, || Some(())) {
            self.fly(flight, ticket, |number| number);
        }
    }

    /// The task of a load, run by the thread that leads. It has its own answer before it goes on to what others
    /// wait for.
    fn fly(&self, mut flight: Flight, mut ticket: Ticket, check: impl Fn(u64) -> u64) -> u64 {
        let mut own = None;
        loop {
            let held = self.ask();
            self.install(held, ticket);
            let next = self.0.stripes.land(KEY, &flight);
            flight.land(Landed::Alone(Ok(Some(value_of(held.number)))));
            let answer = *own.get_or_insert_with(|| check(held.number));
            match next {
                Some(next) => (flight, ticket) = next,
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
        let writing = self.0.stripes.begin_write([KEY].into_iter());
        self.forget();
        let number = self.take(deletes);
        writing.settle();
        self.promise(number);
    }

    /// A write through the cache that keeps what was written.
    fn write_and_keep(&self) {
        let writing = self.0.stripes.begin_write([KEY].into_iter());
        self.forget();
        let number = self.take(false);
        writing.keep(KEY, |era| *self.0.engine.lock() = Some((number, era)));
        writing.settle();
        self.promise(number);
    }

    /// A write that the store below refuses.
    fn refused(&self) {
        let writing = self.0.stripes.begin_write([KEY].into_iter());
        self.forget();
        writing.settle();
    }

    /// A write whose future is dropped, or that fails, before the store below has taken it.
    fn abandoned(&self) {
        let writing = self.0.stripes.begin_write([KEY].into_iter());
        self.forget();
        drop(writing);
    }

    /// Somebody else changes the key, and it is announced.
    fn announced(&self) {
        let number = self.take(false);
        let writing = self.0.stripes.begin_write([KEY].into_iter());
        self.forget();
        writing.settle();
        self.promise(number);
    }

    /// Somebody else changes any keys, and that is announced.
    fn all_announced(&self) {
        let number = self.take(false);
        self.0.stripes.eras.begin(Mode::Keeping);
        self.forget();
        self.promise(number);
    }

    /// Somebody else changes the key, and its prefix is invalidated. What a sweep does to copies is not modelled:
    /// those who have some are not here.
    fn prefix_invalidated(&self) {
        let number = self.take(false);
        self.mark(KEY);
        self.promise(number);
    }

    fn mark(&self, prefix: &[u8]) {
        let eras = &self.0.stripes.eras;
        match eras.mark(prefix) {
            Marked::Done => {}
            Marked::Everything => self.forget(),
            Marked::Full(marks) => {
                self.0.stripes.pass();
                let mut engine = self.0.engine.lock();
                *engine = engine.filter(|(_, began)| !marks.covers(*began, KEY));
                drop(engine);
                eras.swept(&marks);
            }
        }
    }

    /// A run is taken.
    fn ingest(&self) {
        let writing = self.0.stripes.begin_write_all();
        self.0.stripes.eras.renew();
        self.forget();
        let number = self.take(false);
        writing.settle();
        self.promise(number);
    }
}

const KEY: &[u8] = b"k";

fn value_of(number: u64) -> Value {
    Value::new(number.to_be_bytes().to_vec())
}

fn number_of(landed: &Landed) -> u64 {
    let Landed::Alone(Ok(Some(value))) = landed else { panic!("{landed:?}") };
    u64::from_be_bytes(value.bytes[..].try_into().unwrap())
}
