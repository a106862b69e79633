//! How statements reach the server.
//!
//! Statements of one operation are sent together, in one round trip. They are prepared, once for each
//! connection, and the settings of the session hold for them. Behind a pooler in transaction mode a
//! connection has no session: each transaction may be run by another one of the server's. There nothing is
//! prepared, and an operation is a transaction of its own, which begins with the settings.

use std::sync::Arc;

use deadpool_postgres::ClientWrapper;
use futures_util::future::{BoxFuture, join_all};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Error as Theirs, Row};

/// Whether there is a session.
#[derive(Clone)]
pub(super) enum Way {
    /// Statements are prepared.
    Session,
    /// Each operation begins with this, which sets what holds until it ends.
    Transaction(Arc<str>),
    /// Without a session, each statement as it is: in a transaction that was begun already, or by itself.
    Bare,
}

impl Way {
    /// Whether what is set, locked or prepared stays until the connection ends.
    pub(super) fn has_session(&self) -> bool {
        matches!(self, Self::Session)
    }

    /// For statements that are sent one by one over a connection of their own.
    pub(super) fn one_by_one(&self) -> Self {
        match self {
            Self::Session => Self::Session,
            Self::Transaction(_) | Self::Bare => Self::Bare,
        }
    }
}

/// A parameter, with the type that the server is to take it for.
pub(super) type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// One of the statements that are sent together.
pub(super) enum Step<'a> {
    /// Without parameters. May be several.
    Plain(&'a str),
    With(&'a str, Vec<Parameter<'a>>),
}

/// A connection, and how statements are sent over it.
#[derive(Clone, Copy)]
pub(super) struct Session<'a> {
    pub(super) client: &'a ClientWrapper,
    pub(super) way: &'a Way,
}

impl<'a> Session<'a> {
    /// The rows of one statement.
    pub(super) async fn query(
        self,
        text: &'a str,
        parameters: Vec<Parameter<'a>>,
    ) -> Result<Vec<Row>, Theirs> {
        let mut answers = self.send(vec![Step::With(text, parameters)]).await?;
        Ok(answers.pop().unwrap_or_default())
    }

    /// The rows of each statement. Without a session they are one transaction.
    pub(super) async fn send(self, steps: Vec<Step<'a>>) -> Result<Vec<Vec<Row>>, Theirs> {
        let Way::Transaction(begin) = self.way else { return self.send_all(steps).await };
        let between = steps.len();
        let steps = std::iter::once(Step::Plain(begin)).chain(steps);
        let steps = steps.chain([Step::Plain("COMMIT")]).collect();
        let answers = self.send_all(steps).await?;
        Ok(answers.into_iter().skip(1).take(between).collect())
    }

    /// As they are. Everything is sent in the first poll, so a future that is dropped has sent all of it or
    /// nothing. The first error is the cause; the statements behind it fail as well, or refuse to be run.
    pub(super) async fn send_all(self, steps: Vec<Step<'a>>) -> Result<Vec<Vec<Row>>, Theirs> {
        let client = self.client;
        let mut sending: Vec<BoxFuture<'a, Result<Vec<Row>, Theirs>>> = Vec::new();
        for step in steps {
            sending.push(match step {
                Step::Plain(text) => {
                    Box::pin(async move { client.batch_execute(text).await.map(|()| Vec::new()) })
                }
                Step::With(text, parameters) if self.way.has_session() => {
                    let statement = client.prepare_cached(text).await?;
                    Box::pin(async move {
                        let values: Vec<_> = parameters.iter().map(|(value, _)| *value).collect();
                        client.query(&statement, &values).await
                    })
                }
                Step::With(text, parameters) => {
                    Box::pin(async move { client.query_typed(text, &parameters).await })
                }
            });
        }
        join_all(sending).await.into_iter().collect()
    }
}
