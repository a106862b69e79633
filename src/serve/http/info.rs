//! `GET /v1/info` and `GET /v1/openapi.json`: what is served here.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::query::Query;
use super::request::caller;
use crate::error::Error;
use crate::serve::problem::Problem;
use crate::serve::shared::{Shared, StoreState};
use crate::types::{Guarantees, Profile, ProfileKind};

#[derive(Serialize)]
struct Info {
    version: &'static str,
    /// Bytes that the body of a request may have.
    max_body: u64,
    /// Those that the caller may read, by name.
    stores: BTreeMap<String, Served>,
}

/// A store as the caller sees it.
#[derive(Serialize)]
struct Served {
    right: &'static str,
    #[serde(flatten)]
    state: Readiness,
}

#[derive(Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
enum Readiness {
    Open(Box<Open>),
    Failed { error: Problem },
}

#[derive(Serialize)]
struct Open {
    /// Such as `cache(rocksdb)`.
    stack: String,
    guarantees: Guarantees,
    levels: Vec<Level>,
}

/// A layer or a backend, outermost first.
#[derive(Serialize)]
struct Level {
    name: String,
    kind: ProfileKind,
    notes: Vec<String>,
}

pub(super) async fn info(
    State(shared): State<Arc<Shared>>,
    request: Request,
) -> Result<Response, Problem> {
    Query::of(request.uri(), &[])?;
    let caller = caller(&request)?;
    let stores = caller.stores(&shared).filter_map(|(name, right)| {
        Some((name.to_owned(), Served { right: right.as_str(), state: state(&shared, name)? }))
    });
    let stores = stores.collect();
    let info = Info { version: env!("CARGO_PKG_VERSION"), max_body: caller.max_body(), stores };
    let json = serde_json::to_vec(&info)
        .map_err(|error| Error::internal("the answer cannot be written").with_source(error))?;
    Ok((headers("no-store"), json).into_response())
}

/// `None`: it is not known yet.
fn state(shared: &Shared, name: &str) -> Option<Readiness> {
    match shared.find(name) {
        StoreState::Open(store) => Some(Readiness::Open(Box::new(Open::of(&store.profile())))),
        StoreState::Failed(error) => Some(Readiness::Failed { error: Problem::of(error) }),
        StoreState::Opening | StoreState::None => None,
    }
}

impl Open {
    fn of(profile: &Profile) -> Self {
        let levels = profile.levels().map(|level| Level {
            name: level.name.to_string(),
            kind: level.kind,
            notes: level.notes.clone(),
        });
        Self {
            stack: profile.to_string(),
            levels: levels.collect(),
            guarantees: profile.guarantees.clone(),
        }
    }
}

/// The description of the routes, as OpenAPI 3.1.
pub(super) const OPENAPI: &str = include_str!("openapi.json");

pub(super) async fn openapi(request: Request) -> Result<Response, Problem> {
    Query::of(request.uri(), &[])?;
    Ok((headers("no-cache"), OPENAPI).into_response())
}

fn headers(cache: &'static str) -> [(HeaderName, HeaderValue); 3] {
    [
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (CACHE_CONTROL, HeaderValue::from_static(cache)),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ]
}
