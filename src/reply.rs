//! [`Reply`]: an answer that is there already, or a future.
//!
//! A value that is in memory passes every layer as [`Reply::Now`], without an allocation; only an
//! answer that has to be waited for is boxed.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::error::Result;

/// What [`Read`](crate::Read) answers with. A future itself, so `store.get(key).await` works.
///
/// Dropping a `Later` cancels the read and leaves nothing behind.
///
/// ```
/// # tokio_test::block_on(async {
/// use tierstack::Reply;
///
/// let now: Reply<'_, u32> = Reply::ready(20);
/// let doubled = now.map(|number| number * 2);
/// assert!(matches!(doubled, Reply::Now(Ok(40))));
///
/// let later = Reply::later(async { Ok(20) }).and_then(|number| Ok(number + 1));
/// assert_eq!(later.await.unwrap(), 21);
/// # });
/// ```
#[must_use = "a reply does nothing until it is awaited or matched"]
pub enum Reply<'a, T> {
    /// The answer.
    Now(Result<T>),
    /// The answer needs the disk, the network or a lock.
    Later(Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>),
}

impl<'a, T: Send + 'a> Reply<'a, T> {
    /// An answer that is there.
    pub const fn ready(value: T) -> Self {
        Self::Now(Ok(value))
    }

    /// An answer that has to be waited for.
    pub fn later(future: impl Future<Output = Result<T>> + Send + 'a) -> Self {
        Self::Later(Box::pin(future))
    }

    /// Changes the value of an answer.
    pub fn map<U: Send + 'a>(self, change: impl FnOnce(T) -> U + Send + 'a) -> Reply<'a, U> {
        self.and_then(move |value| Ok(change(value)))
    }

    /// Changes the value of an answer into another, or an error.
    pub fn and_then<U: Send + 'a>(
        self,
        change: impl FnOnce(T) -> Result<U> + Send + 'a,
    ) -> Reply<'a, U> {
        self.then(move |result| result.and_then(change))
    }

    /// Changes the error of an answer.
    pub fn map_err(self, change: impl FnOnce(crate::Error) -> crate::Error + Send + 'a) -> Self {
        self.then(move |result| result.map_err(change))
    }

    /// Changes the whole result.
    pub fn then<U: Send + 'a>(
        self,
        change: impl FnOnce(Result<T>) -> Result<U> + Send + 'a,
    ) -> Reply<'a, U> {
        match self {
            Self::Now(result) => Reply::Now(change(result)),
            Self::Later(future) => Reply::later(async move { change(future.await) }),
        }
    }
}

impl<T> Unpin for Reply<'_, T> {}

impl<'a, T: Send + 'a> Future for Reply<'a, T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T>> {
        if let Self::Later(future) = &mut *self {
            return future.as_mut().poll(context);
        }
        // A box of a type without size allocates nothing. Polling again after the answer pends.
        match std::mem::replace(&mut *self, Self::Later(Box::pin(std::future::pending()))) {
            Self::Now(result) => Poll::Ready(result),
            Self::Later(_) => Poll::Pending,
        }
    }
}

impl<T> From<Result<T>> for Reply<'_, T> {
    fn from(result: Result<T>) -> Self {
        Self::Now(result)
    }
}

impl<T: std::fmt::Debug> std::fmt::Debug for Reply<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Now(result) => f.debug_tuple("Now").field(result).finish(),
            Self::Later(_) => f.write_str("Later"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    #[test]
    fn a_ready_answer_is_ready_at_the_first_poll() {
        let mut reply = tokio_test::task::spawn(Reply::ready(1));
        assert_eq!(tokio_test::assert_ready!(reply.poll()).unwrap(), 1);
    }

    #[tokio::test]
    async fn an_error_passes_the_combinators() {
        let reply: Reply<'_, u32> = Reply::Now(Err(Error::closed()));
        assert!(reply.map(|n| n + 1).and_then(Ok).await.is_err());
        let later: Reply<'_, u32> = Reply::later(async { Err(Error::closed()) });
        assert!(later.map(|n| n + 1).await.is_err());
    }
}
