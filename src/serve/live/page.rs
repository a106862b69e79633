//! The page: one file without parts from elsewhere.

use std::sync::LazyLock;

use axum::http::HeaderName;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::response::IntoResponse;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::SupportedCipherSuite;
use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;

pub(super) const PAGE: &str = include_str!("page.html");

/// Nothing runs, is drawn or asked but what is in the file, and asked of this server.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let (script, style) = (hash(inside("script")), hash(inside("style")));
    format!(
        "default-src 'none'; script-src '{script}'; style-src '{style}'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
});

pub(super) async fn page() -> impl IntoResponse {
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, POLICY.as_str()),
        (CACHE_CONTROL, "no-cache"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ];
    (headers, PAGE)
}

/// What is between the tags. There is one of each.
pub(super) fn inside(tag: &str) -> &'static str {
    let begun = PAGE.split_once(&format!("<{tag}>")).map(|(_, rest)| rest);
    let whole = begun.and_then(|rest| rest.split_once(&format!("</{tag}>")));
    whole.map_or("", |(inside, _)| inside)
}

/// As a policy names it: `sha256-...`.
pub(super) fn hash(text: &str) -> String {
    // The hash of a cipher suite: the library of TLS has it, and gives no other name to it.
    let SupportedCipherSuite::Tls13(suite) = TLS13_AES_128_GCM_SHA256 else { return String::new() };
    let hash = suite.common.hash_provider.hash(text.as_bytes());
    format!("sha256-{}", STANDARD.encode(hash.as_ref()))
}
