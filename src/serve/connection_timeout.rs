//! A connection that ends when nothing comes of it: no request, half a head of one, or a reader that does not read.
//!
//! Of a body that is read, and of an answer that is being made, this knows nothing: while a request is under way only
//! writing has a deadline.

use std::io::{Error, ErrorKind, IoSlice, Result};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::http::StatusCode;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::deadline::Alarm;
use super::problem::Problem;
use crate::clock::Clock;

/// How long a caller may take for the head of a request, and to begin its first one.
pub(super) const HEAD: Duration = Duration::from_secs(10);
/// How long nothing may be taken of an answer.
const STALL: Duration = Duration::from_secs(30);

static SLOW: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let detail = format!("the head of the request was not complete within {HEAD:?}");
    Problem::new(StatusCode::REQUEST_TIMEOUT, detail).last_answer()
});

/// The requests of a connection.
pub(super) struct Requests {
    clock: Arc<dyn Clock>,
    begun: AtomicU64,
    ended: AtomicU64,
    /// When the last one ended, in nanoseconds.
    ended_at: AtomicU64,
    slow: AtomicBool,
}

impl Requests {
    pub(super) fn new(clock: &Arc<dyn Clock>) -> Arc<Self> {
        let clock = Arc::clone(clock);
        let [begun, ended, ended_at] = [const { AtomicU64::new(0) }; 3];
        Arc::new(Self { clock, begun, ended, ended_at, slow: AtomicBool::new(false) })
    }

    pub(super) fn begin(self: &Arc<Self>) -> Request {
        self.begun.fetch_add(1, Ordering::Relaxed);
        Request(Arc::clone(self))
    }

    /// Whether the connection ended as the other side sent or took too slowly.
    pub(super) fn were_too_slow(&self) -> bool {
        self.slow.load(Ordering::Relaxed)
    }

    fn too_slow(&self, what: &'static str) -> Error {
        self.slow.store(true, Ordering::Relaxed);
        Error::new(ErrorKind::TimedOut, what)
    }

    fn ended(&self) -> u64 {
        self.ended.load(Ordering::Acquire)
    }

    fn is_under_way(&self) -> bool {
        let ended = self.ended();
        self.begun.load(Ordering::Relaxed) != ended
    }

    fn ended_at(&self) -> Duration {
        Duration::from_nanos(self.ended_at.load(Ordering::Relaxed))
    }
}

/// A request under way, until it is dropped.
pub(super) struct Request(Arc<Requests>);

impl Drop for Request {
    fn drop(&mut self) {
        let now = u64::try_from(self.0.clock.coarse().as_nanos()).unwrap_or(u64::MAX);
        self.0.ended_at.store(now, Ordering::Relaxed);
        self.0.ended.fetch_add(1, Ordering::Release);
    }
}

/// What the bytes of a caller are so far.
#[derive(Clone, Copy, PartialEq)]
enum Reading {
    /// Nothing of a first request.
    Nothing,
    /// Part of a head.
    Head,
    /// Nothing since the last request.
    Idle,
}

pub(super) struct Timed<S> {
    stream: S,
    requests: Arc<Requests>,
    idle: Duration,
    read: Alarm,
    write: Alarm,
    reading: Reading,
    /// How many requests had ended when `reading` was set.
    ended: u64,
    /// The first bytes, as far as they are those of HTTP/2, whose frames are no heads; `None`: they are not.
    preface: Option<usize>,
}

/// No method begins so.
const PREFACE: &[u8] = b"PRI";

impl<S: AsyncWrite + Unpin> Timed<S> {
    pub(super) fn new(
        stream: S,
        requests: &Arc<Requests>,
        idle: Duration,
        clock: &Arc<dyn Clock>,
    ) -> Self {
        Self {
            stream,
            requests: Arc::clone(requests),
            idle,
            read: Alarm::new(Arc::clone(clock)),
            write: Alarm::new(Arc::clone(clock)),
            reading: Reading::Nothing,
            ended: 0,
            preface: Some(0),
        }
    }

    fn is_http2(&self) -> bool {
        self.preface == Some(PREFACE.len())
    }

    fn look_at(&mut self, bytes: &[u8]) {
        let Some(seen) = self.preface.filter(|seen| *seen < PREFACE.len()) else { return };
        let rest = PREFACE.get(seen..).unwrap_or_default();
        let new = rest.len().min(bytes.len());
        self.preface = (bytes.get(..new) == rest.get(..new)).then_some(seen + new);
    }

    /// What is waited for, now that bytes have come or nothing has.
    fn update(&mut self, bytes: &[u8]) {
        if self.requests.is_under_way() {
            // Whatever came before has become a request.
            self.wait_for(Reading::Idle);
            return;
        }
        let ended = self.requests.ended();
        if ended != self.ended {
            self.ended = ended;
            self.reading = Reading::Idle;
            self.read.begin_at(self.requests.ended_at());
        }
        self.look_at(bytes);
        if bytes.is_empty() {
            return;
        }
        // Frames of HTTP/2 come without a request too, such as answers to pings: they are no reason to wait longer.
        let now = if self.is_http2() { Reading::Idle } else { Reading::Head };
        if self.reading != now {
            self.wait_for(now);
        }
    }

    fn wait_for(&mut self, what: Reading) {
        self.reading = what;
        self.read.reset();
    }

    /// Nothing has come. Whether it has for too long.
    fn poll_quiet(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.update(&[]);
        if self.requests.is_under_way() {
            // Nothing wakes this task when the request ends: the alarm rings on, and then finds when that was.
            let _ = self.read.poll_after(cx, self.idle);
            return Poll::Pending;
        }
        let span = if self.reading == Reading::Idle { self.idle } else { HEAD };
        self.read.poll_after(cx, span).map(|()| match self.reading {
            Reading::Head => Err(self.give_up(cx)),
            // The end, as if the caller had left.
            Reading::Nothing | Reading::Idle => Ok(()),
        })
    }

    /// Answers half a head, as far as that goes without waiting: nothing else knows that there is one.
    fn give_up(&mut self, cx: &mut Context<'_>) -> Error {
        // Unless an answer is still on its way.
        if !self.write.is_waiting() && !self.is_http2() {
            let mut stream = Pin::new(&mut self.stream);
            if stream.as_mut().poll_write(cx, &SLOW).is_ready() {
                let _ = stream.poll_flush(cx);
            }
        }
        self.requests.too_slow("the head of a request is not complete")
    }

    /// What an attempt to write has come to.
    fn written<T>(&mut self, cx: &mut Context<'_>, done: Poll<Result<T>>) -> Poll<Result<T>> {
        if done.is_ready() {
            self.write.reset();
            return done;
        }
        self.write
            .poll_after(cx, STALL)
            .map(|()| Err(self.requests.too_slow("nothing was taken of an answer")))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Timed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        match Pin::new(&mut this.stream).poll_read(cx, buf) {
            Poll::Pending => this.poll_quiet(cx),
            Poll::Ready(Ok(())) => {
                this.update(buf.filled().get(before..).unwrap_or_default());
                Poll::Ready(Ok(()))
            }
            failed => failed,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Timed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.written(cx, done)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.written(cx, done)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let done = Pin::new(&mut self.stream).poll_flush(cx);
        self.written(cx, done)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let done = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.written(cx, done)
    }
}
