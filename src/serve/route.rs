//! What a request asks for, as one of a few classes: a path is never a label.

use axum::http::Method;

/// The classes, by their places.
pub(super) const ROUTES: [&str; 13] = [
    "get", "put", "delete", "scan", "batch", "get_many", "changes", "info", "live", "health",
    "metrics", "page", "other",
];

/// The class of a request, by its place.
pub(super) fn place(method: &Method, path: &str) -> usize {
    let class = class(method, path);
    // `other` is the last one.
    ROUTES.iter().position(|name| *name == class).unwrap_or(ROUTES.len() - 1)
}

fn class(method: &Method, path: &str) -> &'static str {
    let reads = matches!(*method, Method::GET | Method::HEAD);
    if let Some((_, rest)) = path.strip_prefix("/v1/stores/").and_then(|path| path.split_once('/'))
    {
        return match (rest, method) {
            ("kv", _) if reads => "scan",
            ("changes", _) if reads => "changes",
            ("get", &Method::POST) => "get_many",
            ("batch", &Method::POST) => "batch",
            ("inspect", &Method::POST) => "live",
            (key, method) if key.starts_with("kv/") => match *method {
                Method::GET | Method::HEAD => "get",
                Method::PUT => "put",
                Method::DELETE => "delete",
                _ => "other",
            },
            _ => "other",
        };
    }
    match path {
        _ if !reads => "other",
        "/" => "page",
        "/healthz" | "/readyz" => "health",
        "/metrics" => "metrics",
        "/v1/info" | "/v1/openapi.json" => "info",
        "/v1/live" | "/v1/status" => "live",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_has_its_class() {
        for (method, path, expected) in [
            ("GET", "/v1/stores/orders/kv/a", "get"),
            ("HEAD", "/v1/stores/orders/kv/a/b", "get"),
            ("GET", "/v1/stores/orders/kv/", "get"),
            ("PUT", "/v1/stores/orders/kv/a", "put"),
            ("DELETE", "/v1/stores/orders/kv/get", "delete"),
            ("POST", "/v1/stores/orders/kv/a", "other"),
            ("GET", "/v1/stores/orders/kv", "scan"),
            ("POST", "/v1/stores/orders/get", "get_many"),
            ("POST", "/v1/stores/orders/batch", "batch"),
            ("GET", "/v1/stores/orders/changes", "changes"),
            ("POST", "/v1/stores/orders/inspect", "live"),
            ("GET", "/v1/stores/orders/batch", "other"),
            ("GET", "/v1/stores/orders", "other"),
            ("GET", "/v1/info", "info"),
            ("GET", "/v1/openapi.json", "info"),
            ("GET", "/v1/live", "live"),
            ("GET", "/v1/status", "live"),
            ("GET", "/healthz", "health"),
            ("HEAD", "/readyz", "health"),
            ("GET", "/metrics", "metrics"),
            ("GET", "/", "page"),
            ("POST", "/", "other"),
            ("GET", "/no/such/path", "other"),
        ] {
            let place = place(&method.parse().unwrap(), path);
            assert_eq!(ROUTES.get(place), Some(&expected), "{method} {path}");
        }
        assert_eq!(ROUTES.last(), Some(&"other"));
    }
}
