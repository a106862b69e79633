//! Commands, and what their answers mean.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use redis::{Cmd, Value as Answer};

use super::cluster::slot_of;
use super::error::{WRONG_TYPE, odd, refused, said};
use super::router::Call;
use super::script;
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::types::{Condition, Entry, Op, Value};

/// Deadlines up to this many milliseconds pass through a script unchanged: its numbers have 53 bits. That
/// is the year 287396. A later one, which another program set, is read as this one, however it is read.
const LAST_DEADLINE: u64 = 1 << 53;

/// A put of a value up to this size is one `SET`, which gives what was there: likely as little, and less
/// than what a script costs. Where it was more, once, there may be more of it.
const SIMPLE_BYTES: usize = 16 << 10;

/// Where entries are in the database.
pub(super) struct Place {
    /// What precedes each key.
    pub(super) prefix: Vec<u8>,
    pub(super) index: Option<Vec<u8>>,
    pub(super) in_cluster: bool,
    /// The hashes of the scripts.
    pub(super) write: String,
    pub(super) read: String,
    pub(super) page: String,
    pub(super) sweep: String,
    pub(super) fill: String,
    pub(super) list: String,
    pub(super) mark: String,
    pub(super) rights: String,
    /// How many replicas a write waits for, and how many milliseconds.
    pub(super) wait: Option<(u32, u64)>,
    /// A put replaced a large value, which came back: from now on they are scripts.
    has_large: AtomicBool,
}

impl Place {
    pub(super) fn new(
        prefix: Vec<u8>,
        index: bool,
        in_cluster: bool,
        wait: Option<(u32, u64)>,
    ) -> Self {
        let hash = |text: &str| redis::Script::new(text).get_hash().to_owned();
        Self {
            index: index.then(|| [&prefix, &b"tierstack:index"[..]].concat()),
            prefix,
            in_cluster,
            write: hash(script::WRITE),
            read: hash(script::READ),
            page: hash(script::PAGE),
            sweep: hash(script::SWEEP),
            fill: hash(script::FILL),
            list: hash(script::LIST),
            mark: hash(script::MARK),
            rights: hash(script::RIGHTS),
            wait,
            has_large: AtomicBool::new(false),
        }
    }

    /// Remembers what a write had the server send.
    pub(super) fn learn(&self, answers: &[Answer]) {
        if matches!(answers.first(), Some(Answer::BulkString(old)) if old.len() > SIMPLE_BYTES) {
            self.has_large.store(true, Ordering::Relaxed);
        }
    }

    /// The key in the database.
    fn full<'a>(&self, key: &'a [u8]) -> std::borrow::Cow<'a, [u8]> {
        if self.prefix.is_empty() { key.into() } else { [&self.prefix, key].concat().into() }
    }

    /// Whether the key would be that of the index. It holds another type, but not while it is missing.
    pub(super) fn is_index(&self, key: &[u8]) -> bool {
        self.index.as_ref().is_some_and(|index| index.strip_prefix(&*self.prefix) == Some(key))
    }

    pub(super) fn slot(&self, key: &[u8]) -> u16 {
        match (self.in_cluster, self.prefix.is_empty()) {
            (false, _) => 0,
            (true, true) => slot_of(key),
            (true, false) => slot_of(&self.prefix),
        }
    }

    /// A value and its deadline, of one moment: two commands sent one after the other may have a write
    /// of somebody else between them.
    pub(super) fn get(&self, key: &[u8]) -> Call {
        let full = self.full(key);
        let commands = vec![
            redis::cmd("MULTI"),
            redis::cmd("GET").arg(&*full).take(),
            redis::cmd("PEXPIRETIME").arg(&*full).take(),
            redis::cmd("EXEC"),
        ];
        Call { slot: self.slot(key), commands, repeatable: true, waits: false, whole: false }
    }

    /// Like [`get`](Self::get), for keys of one slot.
    pub(super) fn get_many<'a>(&self, keys: impl Iterator<Item = &'a Bytes> + Clone) -> Call {
        let slot = keys.clone().next().map_or(0, |key| self.slot(key));
        let mut values = redis::cmd("MGET");
        let mut commands = vec![redis::cmd("MULTI"), Cmd::new()];
        for key in keys {
            let full = self.full(key);
            values.arg(&*full);
            commands.push(redis::cmd("PEXPIRETIME").arg(&*full).take());
        }
        if let Some(place) = commands.get_mut(1) {
            *place = values;
        }
        commands.push(redis::cmd("EXEC"));
        Call { slot, commands, repeatable: true, waits: false, whole: false }
    }

    /// Like [`get_many`](Self::get_many), for a server whose memory is full.
    pub(super) fn read<'a>(&self, keys: impl Iterator<Item = &'a Bytes> + Clone) -> Call {
        let slot = keys.clone().next().map_or(0, |key| self.slot(key));
        let mut command = redis::cmd("EVALSHA");
        command.arg(&self.read).arg(keys.clone().count());
        for key in keys {
            command.arg(&*self.full(key));
        }
        Call { slot, commands: vec![command], repeatable: true, waits: false, whole: false }
    }

    /// Operations and conditions on keys of one slot, as one.
    pub(super) fn write<'a>(
        &self,
        ops: impl Iterator<Item = &'a Op> + Clone,
        conditions: &'a [Condition],
    ) -> Call {
        let first = ops.clone().next();
        let key = first.map(Op::key).or_else(|| conditions.first().map(Condition::key));
        let slot = key.map_or(0, |key| self.slot(key));
        let (count, _) = ops.size_hint();
        let command = match (first, conditions) {
            (Some(Op::Put(key, value)), []) if count == 1 && self.is_simple(value) => {
                self.set(key, value, false)
            }
            (Some(Op::Put(key, value)), [Condition::Absent(absent)])
                if count == 1 && self.is_simple(value) && absent == key =>
            {
                self.set(key, value, true)
            }
            _ => self.script(ops, conditions),
        };
        let mut commands = vec![command];
        let wait = self.wait.filter(|_| count > 0);
        if let Some((replicas, millis)) = wait {
            commands.push(redis::cmd("WAIT").arg(replicas).arg(millis).take());
        }
        Call { slot, commands, repeatable: false, waits: wait.is_some(), whole: false }
    }

    fn is_simple(&self, value: &Value) -> bool {
        self.index.is_none()
            && value.bytes.len() <= SIMPLE_BYTES
            && !self.has_large.load(Ordering::Relaxed)
    }

    /// With `GET`, which gives what was there, it leaves a key of another type alone.
    fn set(&self, key: &[u8], value: &Value, if_absent: bool) -> Cmd {
        let mut command = redis::cmd("SET");
        command.arg(&*self.full(key)).arg(&*value.bytes);
        if if_absent {
            command.arg("NX");
        }
        command.arg("GET");
        if let Some(at) = value.expires_at {
            command.arg("PXAT").arg(to_server(at));
        }
        command
    }

    fn script<'a>(
        &self,
        ops: impl Iterator<Item = &'a Op> + Clone,
        conditions: &'a [Condition],
    ) -> Cmd {
        let (count, _) = ops.size_hint();
        let keys = ops.clone().map(Op::key).chain(conditions.iter().map(Condition::key));
        let mut command = redis::cmd("EVALSHA");
        command.arg(&self.write);
        command.arg(count + conditions.len() + usize::from(self.index.is_some()));
        for key in keys {
            command.arg(&*self.full(key));
        }
        command.arg(&self.index).arg(count);
        match self.index {
            Some(_) => command.arg(self.prefix.len()),
            None => command.arg(""),
        };
        for op in ops {
            match op.value() {
                Some(value) => with_value(&mut command, value),
                None => command.arg("").arg("d"),
            };
        }
        for condition in conditions {
            match condition.value() {
                Some(value) => with_value(&mut command, value),
                None => command.arg("").arg("a"),
            };
        }
        command
    }
}

fn with_value<'a>(command: &'a mut Cmd, value: &Value) -> &'a mut Cmd {
    command.arg(&*value.bytes);
    match value.expires_at {
        Some(at) => command.arg(to_server(at)),
        None => command.arg(""),
    }
}

/// Redis keeps an entry through the whole millisecond of its deadline, we only up to it.
fn to_server(at: Timestamp) -> u64 {
    at.as_millis().saturating_sub(1).max(1)
}

fn from_server(millis: i64) -> Option<Timestamp> {
    // -1: none. -2: no such key, which is not asked for.
    let millis = u64::try_from(millis).ok()?;
    Some(Timestamp::from_millis(millis.saturating_add(1).min(LAST_DEADLINE)))
}

/// Refuses a deadline that would not come back as it was.
pub(super) fn check_deadline(op: &Op) -> Result<()> {
    match op.value().and_then(|value| value.expires_at) {
        Some(at) if at.as_millis() > LAST_DEADLINE => Err(Error::invalid(
            "Redis keeps deadlines up to the year 287396 only; leave the expiry out for an entry that never expires",
        )
        .with_key(op.key())),
        _ => Ok(()),
    }
}

/// What `EXEC` gave.
fn executed(operation: Operation, answers: Vec<Answer>) -> Result<Vec<Answer>> {
    // What keeps a transaction from beginning is said where it was queued.
    let refusal = answers.iter().find_map(|answer| match answer {
        Answer::ServerError(error) => Some(error),
        _ => None,
    });
    if let Some(error) = refusal {
        return Err(refused(operation, error));
    }
    match answers.into_iter().next_back() {
        Some(Answer::Array(results)) => Ok(results),
        _ => Err(odd(operation)),
    }
}

pub(super) fn got(answers: Vec<Answer>) -> Result<Option<Value>> {
    let mut results = executed(Operation::Get, answers)?.into_iter();
    match (results.next(), results.next()) {
        (Some(Answer::Nil), _) => Ok(None),
        (Some(Answer::BulkString(bytes)), Some(Answer::Int(deadline))) => {
            Ok(Some(Value { bytes: bytes.into(), expires_at: from_server(deadline) }))
        }
        (Some(Answer::ServerError(error)), _) => Err(refused(Operation::Get, &error)),
        _ => Err(odd(Operation::Get)),
    }
}

/// `MGET` answers nothing for a key of another type, which the deadline then tells from a missing one.
pub(super) fn got_many<'a>(
    answers: Vec<Answer>,
    keys: impl Iterator<Item = &'a Bytes>,
) -> Result<Vec<Option<Value>>> {
    let mut results = executed(Operation::GetMany, answers)?.into_iter();
    let values = match results.next() {
        Some(Answer::Array(values)) => values,
        Some(Answer::ServerError(error)) => return Err(refused(Operation::GetMany, &error)),
        _ => return Err(odd(Operation::GetMany)),
    };
    let found = values.into_iter().zip(results).zip(keys).map(|pair| match pair {
        ((Answer::Nil, Answer::Int(-2)), _) => Ok(None),
        ((Answer::Nil, Answer::Int(_)), key) => Err(wrong_type(Operation::GetMany).with_key(key)),
        ((Answer::BulkString(bytes), Answer::Int(deadline)), _) => {
            Ok(Some(Value { bytes: bytes.into(), expires_at: from_server(deadline) }))
        }
        _ => Err(odd(Operation::GetMany)),
    });
    found.collect()
}

/// What [`Place::read`] answered.
pub(super) fn read(answers: Vec<Answer>) -> Result<Vec<Option<Value>>> {
    let operation = Operation::GetMany;
    let mut parts = match answers.into_iter().next() {
        Some(Answer::Array(parts)) => parts.into_iter(),
        Some(Answer::ServerError(error)) => return Err(refused(operation, &error)),
        _ => return Err(odd(operation)),
    };
    let mut found = Vec::with_capacity(parts.len() / 2);
    while let Some(value) = parts.next() {
        found.push(match (value, parts.next()) {
            (Answer::Nil, Some(_)) => None,
            (Answer::BulkString(bytes), Some(Answer::Int(deadline))) => {
                Some(Value { bytes: bytes.into(), expires_at: from_server(deadline) })
            }
            _ => return Err(odd(operation)),
        });
    }
    Ok(found)
}

pub(super) fn wrong_type(operation: Operation) -> Error {
    said(ErrorKind::InvalidInput, WRONG_TYPE).with_operation(operation)
}

/// What a write answered; `op` gives its nth operation, of `ops`.
pub(super) fn written<'a>(
    operation: Operation,
    answers: Vec<Answer>,
    (op, ops): (impl Fn(usize) -> Option<&'a Op>, usize),
    conditions: &'a [Condition],
    replicas: u32,
) -> Result<()> {
    let at = |number: i64| usize::try_from(number - 1).ok();
    let condition = |number: i64| conditions.get(at(number)?);
    let key = |number: i64| {
        let at = at(number)?;
        let condition = || conditions.get(at.checked_sub(ops)?).map(Condition::key);
        op(at).map(Op::key).or_else(condition)
    };
    let unmet = |number: i64| match condition(number) {
        Some(condition) => condition.unmet().with_operation(operation),
        None => odd(operation),
    };
    let mut answers = answers.into_iter();
    match answers.next() {
        Some(Answer::Int(0) | Answer::Nil) => {}
        Some(Answer::BulkString(_)) if conditions.is_empty() => {}
        Some(Answer::BulkString(_)) => return Err(unmet(1)),
        Some(Answer::Int(number @ 1..)) => return Err(unmet(number)),
        Some(Answer::Int(number)) => {
            return Err(match key(-number) {
                Some(key) => wrong_type(operation).with_key(key),
                None => said(
                    ErrorKind::Config,
                    "the key of the index holds something else; rename that with the program that wrote it",
                ),
            });
        }
        Some(Answer::ServerError(error)) => return Err(refused(operation, &error)),
        _ => return Err(odd(operation)),
    }
    match answers.next() {
        None => Ok(()),
        Some(Answer::Int(have)) if have >= i64::from(replicas) => Ok(()),
        Some(Answer::Int(have)) => Err(said(
            ErrorKind::Unavailable,
            format!("the write is done, but {have} replicas have it in place of the {replicas} of `wait_replicas`"),
        )
        .with_operation(operation)),
        Some(Answer::ServerError(error)) => Err(refused(operation, &error)),
        Some(_) => Err(odd(operation)),
    }
}

/// A page as the script answers it.
pub(super) struct Run {
    pub(super) entries: Vec<Entry>,
    pub(super) last: Bytes,
    pub(super) ended: bool,
}

/// What became of a page.
pub(super) enum Paged {
    Run(Run),
    /// The index is missing, or not complete.
    Incomplete,
    /// There are more keys than the index knows of.
    Behind,
}

pub(super) fn page(answers: Vec<Answer>, keys_only: bool) -> Result<Paged> {
    let operation = Operation::Scan;
    let mut parts = match answers.into_iter().next() {
        Some(Answer::Array(parts)) => parts.into_iter(),
        Some(Answer::ServerError(error)) => return Err(refused(operation, &error)),
        _ => return Err(odd(operation)),
    };
    let (Some(Answer::Int(ended)), Some(Answer::BulkString(last))) = (parts.next(), parts.next())
    else {
        return Err(odd(operation));
    };
    match ended {
        2 => return Ok(Paged::Incomplete),
        3 => return Ok(Paged::Behind),
        _ => {}
    }
    let mut entries = Vec::with_capacity(if keys_only { parts.len() } else { parts.len() / 3 });
    while let Some(key) = parts.next() {
        let Answer::BulkString(key) = key else { return Err(odd(operation)) };
        let value = match keys_only {
            true => Value::default(),
            false => match (parts.next(), parts.next()) {
                (Some(Answer::BulkString(bytes)), Some(Answer::Int(deadline))) => {
                    Value { bytes: bytes.into(), expires_at: from_server(deadline) }
                }
                _ => return Err(odd(operation)),
            },
        };
        entries.push(Entry { key: key.into(), value });
    }
    Ok(Paged::Run(Run { entries, last: last.into(), ended: ended == 1 }))
}
