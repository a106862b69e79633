//! The data over HTTP: everything below `/v1/stores`, and what describes it.
//!
//! `docs/http.md` is the page for those that call it; `openapi.json` is served. Handlers use the contract and nothing
//! else. What a caller may do is asked of [`Caller`], and what went wrong is a [`Problem`].

mod batch;
mod body;
mod changes;
mod headers;
mod info;
mod lines;
mod many;
mod path;
mod query;
mod range;
mod request;
mod scan;
mod tag;
#[cfg(test)]
mod tests;
mod value;
mod write;

use std::sync::Arc;

use axum::Router;
use axum::routing::{MethodRouter, get, post};

use super::shared::Shared;

/// The routes, without state.
pub(in crate::serve) fn routes() -> Router<Arc<Shared>> {
    table().into_iter().fold(Router::new(), |router, (path, methods)| router.route(path, methods))
}

/// Each path, and what answers there. `openapi.json` has the same.
fn table() -> [(&'static str, MethodRouter<Arc<Shared>>); 8] {
    let value = || get(value::get).put(write::put).delete(write::delete);
    [
        ("/v1/info", get(info::info)),
        ("/v1/openapi.json", get(info::openapi)),
        ("/v1/stores/{store}/kv", get(scan::scan)),
        // The empty key, which the store refuses.
        ("/v1/stores/{store}/kv/", value()),
        ("/v1/stores/{store}/kv/{*key}", value()),
        ("/v1/stores/{store}/get", post(many::get)),
        ("/v1/stores/{store}/batch", post(batch::write)),
        ("/v1/stores/{store}/changes", get(changes::changes)),
    ]
}
