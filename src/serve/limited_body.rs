//! Bodies: of requests, no larger than the listener takes and no slower than a caller may be; of answers, counted until they
//! are sent.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use hyper::body::{Frame, Incoming, SizeHint};

use super::budget::Share;
use super::counters::{Counters, Refusal};
use super::deadline::Alarm;
use super::problem::Problem;
use super::shared::Shared;
use crate::telemetry::Counter;

/// How long nothing may come of a body that is waited for.
const STALL: Duration = Duration::from_secs(30);

/// Why a body could not be read to its end.
#[derive(Debug)]
pub(in crate::serve) enum BodyError {
    TooLarge(u64),
    /// There is no room for it next to the others.
    Crowded,
    Stalled,
    Broken,
}

impl BodyError {
    /// The problem to answer with.
    pub(in crate::serve) fn problem(&self) -> Problem {
        let (status, why) = match self {
            Self::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, Some(Refusal::Body)),
            Self::Crowded => (StatusCode::SERVICE_UNAVAILABLE, Some(Refusal::Body)),
            Self::Stalled => (StatusCode::REQUEST_TIMEOUT, Some(Refusal::Slow)),
            Self::Broken => (StatusCode::BAD_REQUEST, None),
        };
        let mut problem = Problem::new(status, self.to_string());
        if let Some(why) = why {
            problem = problem.turned_away(why);
        }
        match self {
            Self::TooLarge(most) => problem.with_limit(*most),
            Self::Crowded => problem.retry_after(1),
            Self::Stalled | Self::Broken => problem,
        }
    }

    /// What reading a body with axum failed with.
    pub(in crate::serve) fn problem_of(error: &(dyn std::error::Error + 'static)) -> Problem {
        let mut causes = std::iter::successors(Some(error), |error| error.source());
        match causes.find_map(|error| error.downcast_ref::<Self>()) {
            Some(found) => found.problem(),
            None => Self::Broken.problem(),
        }
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge(most) => {
                write!(f, "the body is larger than {most} bytes, the most that this listener takes")
            }
            Self::Crowded => f.write_str(
                "the bodies of other requests fill the memory for bodies; send the request again in a moment",
            ),
            Self::Stalled => write!(f, "nothing came of the body for {STALL:?}"),
            Self::Broken => f.write_str("the body ended early, or is malformed"),
        }
    }
}

impl std::error::Error for BodyError {}

/// The body of a request.
pub(super) struct Bounded {
    body: Incoming,
    left: u64,
    most: u64,
    share: Arc<Share>,
    came: Counter,
    alarm: Alarm,
}

impl Bounded {
    pub(super) fn new(
        body: Incoming,
        most: u64,
        share: &Arc<Share>,
        counters: &Counters,
        shared: &Shared,
    ) -> Self {
        let (share, came) = (Arc::clone(share), counters.bytes_in.clone());
        Self { body, left: most, most, share, came, alarm: Alarm::new(Arc::clone(&shared.clock)) }
    }
}

impl hyper::body::Body for Bounded {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) else {
            ready!(this.alarm.poll_after(cx, STALL));
            return Poll::Ready(Some(Err(BodyError::Stalled)));
        };
        this.alarm.reset();
        Poll::Ready(frame.map(|frame| {
            let frame = frame.map_err(|_| BodyError::Broken)?;
            let length = frame.data_ref().map_or(0, |data| data.len() as u64);
            this.came.increment(length);
            match this.left.checked_sub(length) {
                Some(left) => this.left = left,
                None => return Err(BodyError::TooLarge(this.most)),
            }
            if this.share.take(length) { Ok(frame) } else { Err(BodyError::Crowded) }
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of an answer, with what is to be dropped when it is sent.
pub(super) struct Tracked<T> {
    pub(super) body: Body,
    pub(super) sent: Counter,
    pub(super) _until_sent: T,
}

impl<T: Unpin> hyper::body::Body for Tracked<T> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame {
            self.sent.increment(frame.data_ref().map_or(0, |data| data.len() as u64));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
