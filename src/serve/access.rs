//! The caller of a request, and its right to each store.

use std::sync::Arc;

use axum::http::StatusCode;

use super::budget::{Budget, Share};
use super::counters::Refusal;
use super::policy::Policy;
use super::problem::Problem;
use super::shared::{Shared, StoreState};
pub(in crate::serve) use crate::config::Right;
use crate::store::Store;

/// The caller of a request. Each request has one among its extensions; the gate puts it there.
#[derive(Clone)]
pub(in crate::serve) struct Caller {
    policy: Arc<Policy>,
    proof: Proof,
    answers: Arc<Budget>,
}

/// How a caller has proved itself.
#[derive(Clone, Copy)]
pub(in crate::serve) enum Proof {
    /// The listener asks for no token.
    NotAsked,
    /// Not at all, for what is open to everybody.
    None,
    /// By the token at this place of the policy.
    Token(usize),
}

impl Caller {
    pub(in crate::serve) fn new(policy: Arc<Policy>, proof: Proof, answers: &Arc<Budget>) -> Self {
        Self { policy, proof, answers: Arc::clone(answers) }
    }

    /// The name of the token.
    pub(in crate::serve) fn name(&self) -> Option<&str> {
        match self.proof {
            Proof::Token(at) => self.policy.tokens.get(at).map(|token| &*token.name),
            Proof::NotAsked | Proof::None => None,
        }
    }

    /// What the caller may do with a store. `None`: it is as if there were no such store.
    pub(in crate::serve) fn right(&self, store: &str) -> Option<Right> {
        let right = self.policy.stores.right(store)?;
        match self.proof {
            Proof::NotAsked => Some(right),
            Proof::None => None,
            Proof::Token(at) => match &self.policy.tokens.get(at)?.stores {
                None => Some(right),
                Some(grants) => grants.right(store).map(|granted| granted.min(right)),
            },
        }
    }

    /// The stores that the caller may at least read, with the right to each.
    pub(in crate::serve) fn stores<'a>(
        &'a self,
        shared: &'a Shared,
    ) -> impl Iterator<Item = (&'a str, Right)> {
        shared.names().filter_map(|name| Some((name, self.right(name)?)))
    }

    /// What the answer may hold of the memory for answers.
    pub(in crate::serve) fn share(&self) -> Share {
        self.answers.share(self.policy.limits.of_bodies())
    }

    /// The largest body of a request.
    pub(in crate::serve) fn max_body(&self) -> u64 {
        self.policy.limits.body.0
    }

    /// The store, for what needs that right.
    pub(in crate::serve) fn store<'a>(
        &self,
        shared: &'a Shared,
        name: &str,
        right: Right,
    ) -> Result<&'a Arc<dyn Store>, Problem> {
        let served = self.policy.stores.right(name);
        if served.is_none() {
            return Err(no_such_store());
        }
        if self.right(name) < Some(right) {
            let whose = match self.name() {
                Some(token) if served >= Some(right) => {
                    format!("which the token '{token}' does not have")
                }
                _ => "which this listener does not give".to_owned(),
            };
            return Err(Problem::new(
                StatusCode::FORBIDDEN,
                format!("this needs the right `{}` to the store, {whose}", right.as_str()),
            )
            .turned_away(Refusal::Right));
        }
        match shared.find(name) {
            StoreState::Open(store) => Ok(store),
            StoreState::Failed(error) => {
                Err(Problem::of(error).with_status(StatusCode::SERVICE_UNAVAILABLE))
            }
            StoreState::Opening => Err(Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "the stores are being opened; try again in a moment",
            )
            .retry_after(1)),
            StoreState::None => Err(no_such_store()),
        }
    }
}

fn no_such_store() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "this listener serves no such store; `/v1/info` names those that it serves",
    )
}
