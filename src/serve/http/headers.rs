//! Headers of answers that hold values.

use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderName, HeaderValue};

/// A value, or what holds values, is shown by no browser as a page of this server.
pub(super) const SEALED: [(HeaderName, HeaderValue); 2] = [
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox; default-src 'none'")),
];

/// Headers of a stream of that type, of which no part is kept on the way.
pub(super) fn stream_headers(media_type: &'static str) -> [(HeaderName, HeaderValue); 4] {
    let [sniff, policy] = SEALED;
    [
        (CONTENT_TYPE, HeaderValue::from_static(media_type)),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        sniff,
        policy,
    ]
}
