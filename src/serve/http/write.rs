//! `PUT` and `DELETE` of a value.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{CONTENT_RANGE, ETAG};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;

use super::body;
use super::path::Target;
use super::query::Query;
use super::request::{caller, guarantees, refused, store};
use super::tag::{Preconditions, Tag, Verdict};
use super::value::changed;
use crate::clock::{Clock, Timestamp};
use crate::error::{Error, ErrorKind, Operation, Outcome};
use crate::serve::access::Right;
use crate::serve::problem::Problem;
use crate::serve::shared::Shared;
use crate::store::Store;
use crate::types::units::Span;
use crate::types::{Batch, Commit, Condition, Conditions, Guarantees, Op, Value};

/// The place of a write in the store's order of writes.
const SEQUENCE: HeaderName = HeaderName::from_static("tierstack-sequence");

/// Reads and writes of one conditional request, as long as others are always first.
const ATTEMPTS: usize = 16;

pub(super) async fn put(
    State(shared): State<Arc<Shared>>,
    request: Request,
) -> Result<Response, Problem> {
    let target = Target::of(request.uri().path())?;
    let store = Arc::clone(store(&shared, &request, &target, Right::Write)?);
    let query = Query::of(request.uri(), &["ttl", "expires_at", "durable"])?;
    let (durable, expires_at) = (query.flag("durable")?, deadline(&query, &*shared.clock)?);
    let key = Bytes::from(target.key()?.into_owned());
    let conditions = Preconditions::of(request.headers())?;
    body::check_encoding(request.headers())?;
    if request.headers().contains_key(CONTENT_RANGE) {
        return Err(Problem::bad_request(
            "a value is put as a whole: the header Content-Range has no meaning here",
        ));
    }
    let guarantees = guarantees(&shared, &target)?;
    check(&conditions, guarantees)?;
    // Before the body is read, which may be long.
    guarantees.limits.check(key.len(), 0).map_err(|error| refused(&error, &store, key.len(), 0))?;
    let own = caller(&request)?.max_body();
    let limit = guarantees.limits.value_bytes.map_or(own, |limit| limit.min(own));
    let value = Value { bytes: body::read(request.into_body(), limit).await?, expires_at };
    let length = value.bytes.len();
    let written = write(&store, Op::Put(key.clone(), value.clone()), &conditions).await;
    let written = written.map_err(|failed| failed.told(&store, key.len(), length))?;
    // What the store keeps may be another value, such as one with a default deadline.
    let tag = if guarantees.verbatim { Some(Tag::of(&value).await) } else { None };
    answer(written, tag, durable).await
}

pub(super) async fn delete(
    State(shared): State<Arc<Shared>>,
    request: Request,
) -> Result<Response, Problem> {
    let target = Target::of(request.uri().path())?;
    let store = store(&shared, &request, &target, Right::Write)?;
    let query = Query::of(request.uri(), &["durable"])?;
    let durable = query.flag("durable")?;
    let key = Bytes::from(target.key()?.into_owned());
    let conditions = Preconditions::of(request.headers())?;
    if !conditions.are_none() {
        check(&conditions, guarantees(&shared, &target)?)?;
    }
    let written = write(store, Op::Delete(key.clone()), &conditions).await;
    let written = written.map_err(|failed| failed.told(store, key.len(), 0))?;
    answer(Written { created: false, ..written }, None, durable).await
}

/// The deadline that a request gives.
fn deadline(query: &Query<'_>, clock: &dyn Clock) -> Result<Option<Timestamp>, Problem> {
    match (query.parsed::<Span>("ttl")?, query.parsed::<Timestamp>("expires_at")?) {
        (Some(_), Some(_)) => {
            Err(Problem::bad_request("both `ttl` and `expires_at` are given; give one of them"))
        }
        (Some(Span(ttl)), None) => Ok(Some(clock.now() + ttl)),
        (None, at) => Ok(at),
    }
}

/// Whether the store can check what a request requires.
fn check(conditions: &Preconditions, guarantees: &Guarantees) -> Result<(), Problem> {
    let needed = match conditions {
        none if none.are_none() => Conditions::None,
        absence if absence.is_absence() => Conditions::Absence,
        _ => Conditions::Value,
    };
    if needed <= guarantees.conditions {
        return Ok(());
    }
    let can = match guarantees.conditions {
        Conditions::None => "this store can check no condition",
        _ => "this store can only check that a key is absent (`If-None-Match: *`)",
    };
    Err(Problem::new(
        StatusCode::NOT_IMPLEMENTED,
        format!(
            "{can}; the backends memory, file, rocksdb, sqlite, postgres and redis check every one (`conditions` in `/v1/info` says what a store can check)"
        ),
    ))
}

/// A write that took effect.
struct Written {
    commit: Commit,
    /// There was nothing before.
    created: bool,
}

/// A write that did not.
enum Failed {
    Told(Problem),
    Refused(Error),
}

impl Failed {
    fn told(self, store: &dyn Store, key: usize, value: usize) -> Problem {
        match self {
            Self::Told(problem) => problem,
            Self::Refused(error) => {
                refused(&error.with_operation(Operation::Write), store, key, value)
            }
        }
    }
}

/// Writes where the conditions hold, and still hold at that moment: what was read is what the batch requires.
async fn write(store: &dyn Store, op: Op, conditions: &Preconditions) -> Result<Written, Failed> {
    if conditions.are_none() {
        let commit = store.write(Batch::from_iter([op])).await.map_err(Failed::Refused)?;
        return Ok(Written { commit, created: false });
    }
    let key = op.key().clone();
    for _ in 0..ATTEMPTS {
        let condition = if conditions.is_absence() {
            Condition::Absent(key.clone())
        } else {
            let found = store.get(&key).await.map_err(Failed::Refused)?;
            let tag = match &found {
                Some(value) => Some(Tag::of(value).await),
                None => None,
            };
            match conditions.judge(tag.as_ref()) {
                Verdict::Changed => return Err(Failed::Told(changed())),
                Verdict::Same => return Err(Failed::Told(exists())),
                Verdict::Holds => {}
            }
            found.map_or_else(
                || Condition::Absent(key.clone()),
                |value| Condition::Equals(key.clone(), value),
            )
        };
        let created = matches!(condition, Condition::Absent(_));
        match store.write(Batch::from_iter([op.clone()]).require(condition)).await {
            Ok(commit) => return Ok(Written { commit, created }),
            Err(error) if is_lost_race(&error, &key) => {
                if conditions.is_absence() {
                    return Err(Failed::Told(exists()));
                }
            }
            Err(error) => return Err(Failed::Refused(error)),
        }
    }
    Err(Failed::Told(
        Problem::new(
            StatusCode::CONFLICT,
            format!("others changed the value during each of {ATTEMPTS} attempts, so nothing was written"),
        )
        .retry_after(1),
    ))
}

/// Whether another was first, and nothing was written.
fn is_lost_race(error: &Error, key: &[u8]) -> bool {
    error.kind() == ErrorKind::Conflict
        && error.outcome() == Outcome::Nothing
        && error.key().is_none_or(|of| of == key)
}

/// `If-None-Match` does not hold.
fn exists() -> Problem {
    Problem::new(
        StatusCode::PRECONDITION_FAILED,
        "there is a value that If-None-Match excludes, so nothing was written",
    )
}

/// `201` where the write is known to have made the entry, `204` otherwise.
async fn answer(written: Written, tag: Option<Tag>, durable: bool) -> Result<Response, Problem> {
    let place = sequence(&written.commit);
    if durable {
        wait(written.commit).await?;
    }
    let status = if written.created { StatusCode::CREATED } else { StatusCode::NO_CONTENT };
    let mut response = status.into_response();
    let headers = response.headers_mut();
    headers.extend(place);
    headers.extend(tag.map(|tag| (ETAG, tag.header())));
    Ok(response)
}

/// The header that says where a write is, if the store has an order of writes.
pub(super) fn sequence(commit: &Commit) -> Option<(HeaderName, HeaderValue)> {
    commit.sequence.map(|sequence| (SEQUENCE, sequence.into()))
}

/// Waits until a write is as durable as the stack guarantees. One that does not get there has still taken effect.
pub(super) async fn wait(commit: Commit) -> Result<(), Problem> {
    commit.durable().await.map_err(|error| {
        let error = error.with_operation(Operation::Write).with_outcome(Outcome::Unknown);
        Problem::of(&error.with_context("the write took effect, and may not be kept"))
    })
}
