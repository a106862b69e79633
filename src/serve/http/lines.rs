//! Lines of JSON: those of a body, and those of an answer that is made while it is sent.
//!
//! An answer of lines has a last line that says that it is the last: `{"end":true,...}`, or `{"error":{...}}`. The
//! status was sent long before, so an answer without one of them was cut off.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use serde::{Deserialize, Deserializer, Serialize};
use tokio::sync::mpsc;

use super::body::LINES;
use super::headers::stream_headers;
use crate::error::Error;
use crate::jsonl::{self, Wrong};
use crate::serve::access::Caller;
use crate::serve::budget::{Part, Share, kept};
use crate::serve::problem::Problem;
use crate::types::Value;

/// Bytes that are handed on at a time.
const CHUNK: usize = 64 << 10;

/// A field that is a text where it is: `null` is no way to leave it out.
pub(super) fn text<'de, D: Deserializer<'de>>(text: D) -> Result<Option<String>, D::Error> {
    String::deserialize(text).map(Some)
}

/// Where the lines of an answer are written to.
pub(super) struct Lines {
    buffer: Vec<u8>,
    send: mpsc::Sender<Bytes>,
    share: Arc<Share>,
}

impl Lines {
    /// An entry in the form of `import` and `export`, without its value if none is given.
    pub(super) async fn entry(&mut self, key: &[u8], value: Option<&Value>) -> Result<(), Stop> {
        if self.buffer.capacity() == 0 {
            // The chunk before has taken its memory along.
            self.buffer.reserve(CHUNK + CHUNK / 8);
        }
        jsonl::write(&mut self.buffer, key, value)
            .map_err(|error| Error::internal("an entry cannot be written").with_source(error))?;
        self.hand_on(CHUNK).await
    }

    pub(super) async fn line(&mut self, line: &impl Serialize) -> Result<(), Stop> {
        serde_json::to_writer(&mut self.buffer, line)
            .map_err(|error| Error::internal("a line cannot be written").with_source(error))?;
        self.buffer.push(b'\n');
        self.hand_on(CHUNK).await
    }

    /// What is held while lines are made of it: it counts until it is dropped.
    pub(super) fn hold<'a>(
        &self,
        held: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    ) -> Result<Part, Stop> {
        let bytes = held.map(|(key, value)| key.len() + value.len()).sum();
        self.share.part(bytes).map_err(Stop::Failed)
    }

    /// Sends what there is, if it is that much. Waits for the reader.
    pub(super) async fn hand_on(&mut self, least: usize) -> Result<(), Stop> {
        if self.buffer.len() < least.max(1) {
            return Ok(());
        }
        let part = self.share.part(self.buffer.len()).map_err(Stop::Failed)?;
        let chunk = kept(std::mem::take(&mut self.buffer), part);
        self.send.send(chunk).await.map_err(|_| Stop::Gone)
    }
}

/// Why an answer ends before its end.
pub(super) enum Stop {
    /// Nobody reads it.
    Gone,
    Failed(Problem),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error.into())
    }
}

/// Answers with the lines that a future writes. It runs while the answer is read, and holds what the reader has not
/// taken yet to two chunks and what the lines are made of, which count. When it fails before its first line, the answer is the problem.
pub(super) async fn answer<F>(
    caller: &Caller,
    write: impl FnOnce(Lines) -> F,
) -> Result<Response, Problem>
where
    F: Future<Output = (Lines, Result<(), Stop>)> + Send + 'static,
{
    let (send, receive) = mpsc::channel(1);
    let share = Arc::new(caller.share());
    let writing = write(Lines { buffer: Vec::new(), send, share });
    let mut chunks = Box::pin(chunks(writing, receive));
    let first = chunks.next().await.transpose()?;
    let rest = chunks.map(|chunk| chunk.unwrap_or_else(|problem| problem.to_line().into()));
    let all = stream::iter(first).chain(rest).map(Ok::<_, std::convert::Infallible>);
    Ok((stream_headers(LINES), Body::from_stream(all)).into_response())
}

/// The chunks that a future sends, and then what it failed with.
fn chunks<F>(
    writing: F,
    mut receive: mpsc::Receiver<Bytes>,
) -> impl Stream<Item = Result<Bytes, Problem>>
where
    F: Future<Output = (Lines, Result<(), Stop>)> + Send + 'static,
{
    let writing = async {
        let (mut lines, written) = writing.await;
        // What was written before a failure is the reader's.
        let rest = lines.hand_on(0).await;
        match written.and(rest) {
            Err(Stop::Failed(problem)) => Some(problem),
            Ok(()) | Err(Stop::Gone) => None,
        }
    };
    let mut writing: Option<Pin<Box<dyn Future<Output = Option<Problem>> + Send>>> =
        Some(Box::pin(writing));
    let mut failed = None;
    stream::poll_fn(move |context| {
        if let Some(run) = &mut writing
            && let Poll::Ready(problem) = run.as_mut().poll(context)
        {
            (failed, writing) = (problem, None);
        }
        match receive.poll_recv(context) {
            Poll::Ready(Some(chunk)) => Poll::Ready(Some(Ok(chunk))),
            Poll::Ready(None) => Poll::Ready(failed.take().map(Err)),
            Poll::Pending => Poll::Pending,
        }
    })
}

/// A key in an answer: as text, or as base64 where it is not UTF-8.
#[derive(Serialize)]
pub(super) struct Key<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key64: Option<String>,
}

impl<'a> Key<'a> {
    pub(super) fn new(key: &'a [u8]) -> Self {
        let (key, key64) = jsonl::text_or_base64(key);
        Self { key, key64 }
    }
}

/// The lines of a body that are not blank, with their numbers from 1.
pub(super) fn of_body(body: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    let lines = body.split(|byte| *byte == b'\n').zip(1..);
    lines.filter(|(line, _)| !line.trim_ascii().is_empty()).map(|(line, number)| (number, line))
}

/// A line that is wrong.
pub(super) fn wrong(number: u64, wrong: Wrong) -> Problem {
    Problem::bad_request(format!("line {number}: {wrong}")).at(number, wrong.column)
}
