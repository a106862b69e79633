//! The live page, and what it shows as data.

use std::sync::Arc;

use axum::Router;

use super::shared::Shared;

/// The routes, without state.
pub(in crate::serve) fn routes() -> Router<Arc<Shared>> {
    Router::new()
}
