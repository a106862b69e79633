//! The data over HTTP: everything below `/v1/stores`, and what describes it.

use std::sync::Arc;

use axum::Router;

use super::shared::Shared;

/// The routes, without state.
pub(in crate::serve) fn routes() -> Router<Arc<Shared>> {
    Router::new()
}
