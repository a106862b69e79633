//! What every request passes before it reaches a handler: that it was meant for this server, and what its caller may do.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::DefaultBodyLimit;
use axum::http::header::{AUTHORIZATION, CONTENT_LENGTH, HOST, ORIGIN, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use hyper::body::{Body as _, Incoming};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;

use super::access::{Caller, Proof};
use super::budget::{Budget, Share};
use super::connection_timeout::{self, Requests};
use super::counters::{Counters, Refusal};
use super::health;
use super::limited_body::{BodyError, Bounded, Tracked};
use super::policy::{Current, Policy};
use super::problem::Problem;
use super::route;
use super::shared::{Counted, Shared};

/// What is kept until an answer is sent.
pub(super) type UntilSent = (connection_timeout::Request, Counted, Option<Arc<Share>>);

/// One for each listener.
pub(super) struct Gate {
    pub(super) shared: Arc<Shared>,
    pub(super) policy: Current,
    pub(super) counters: Arc<Counters>,
    /// Where it listens.
    name: String,
    bodies: Arc<Budget>,
    answers: Arc<Budget>,
    router: TowerToHyperService<Router>,
    /// The port, where a browser reaches it.
    port: Option<u16>,
}

impl Gate {
    pub(super) fn new(
        shared: &Arc<Shared>,
        name: &str,
        policy: Policy,
        port: Option<u16>,
        routes: Router<Arc<Shared>>,
    ) -> Self {
        let router = health::routes()
            .merge(routes)
            .fallback(async || Problem::new(StatusCode::NOT_FOUND, "there is nothing at this path"))
            .method_not_allowed_fallback(async || {
                Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this path does not take this method")
            })
            // The listener's own is kept where the body is read.
            .layer(DefaultBodyLimit::disable())
            .with_state(Arc::clone(shared));
        let counters = Arc::new(Counters::new(name));
        Self {
            shared: Arc::clone(shared),
            policy: Current::new(policy, counters.labels.clone()),
            counters,
            name: name.to_owned(),
            bodies: Arc::default(),
            answers: Arc::default(),
            router: TowerToHyperService::new(router),
            port,
        }
    }

    pub(super) async fn answer(
        self: Arc<Self>,
        requests: Arc<Requests>,
        request: Request<Incoming>,
    ) -> Result<Response<Tracked<UntilSent>>, Infallible> {
        let (request_ends, counted) = (requests.begin(), self.shared.request());
        let begun = self.shared.clock.monotonic();
        let route = route::place(request.method(), request.uri().path());
        let policy = self.policy.load_full();
        let mut share = None;
        let is_logged = tracing::enabled!(tracing::Level::DEBUG);
        let (mut token, method) = (None, is_logged.then(|| request.method().clone()));
        let response = match self.admit(&policy, &request) {
            Ok(caller) => {
                let (mut head, body) = request.into_parts();
                if is_logged {
                    token = caller.name().map(str::to_owned);
                }
                head.extensions.insert(caller);
                let body = if body.is_end_stream() {
                    Body::empty()
                } else {
                    let held = share.insert(Arc::new(self.bodies.share(policy.limits.of_bodies())));
                    Body::new(Bounded::new(
                        body,
                        policy.limits.body.0,
                        held,
                        &self.counters,
                        &self.shared,
                    ))
                };
                let Ok(response) = self.router.call(Request::from_parts(head, body)).await;
                response
            }
            Err(problem) => problem.into_response(),
        };
        let took = self.shared.clock.monotonic().saturating_sub(begun);
        self.counters.answered(route, response.status(), took);
        if let Some(method) = method {
            let (listener, status) = (&*self.name, response.status().as_u16());
            let route = route::ROUTES.get(route);
            tracing::debug!(listener, token, %method, route, status, ?took, "answered");
        }
        if let Some(why) = response.extensions().get() {
            self.counters.refused(*why);
        }
        let sent = self.counters.bytes_out.clone();
        Ok(response.map(|body| Tracked { body, sent, _until_sent: (request_ends, counted, share) }))
    }

    fn admit(&self, policy: &Arc<Policy>, request: &Request<Incoming>) -> Result<Caller, Problem> {
        let headers = request.headers();
        check_origin(request)?;
        let proof = if policy.tokens.is_empty() {
            self.check_host(request)?;
            Proof::NotAsked
        } else {
            match presented(headers) {
                Some(presented) => policy
                    .find(presented)
                    .map(Proof::Token)
                    .ok_or_else(|| unauthorized("this listener does not know the token", true))?,
                None if is_open(request) => Proof::None,
                None => {
                    return Err(unauthorized(
                        "this listener asks for a token; send `Authorization: Bearer TOKEN`",
                        false,
                    ));
                }
            }
        };
        let length =
            headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let most = policy.limits.body.0;
        if length.is_some_and(|length: u64| length > most) {
            return Err(BodyError::TooLarge(most).problem());
        }
        Ok(Caller::new(Arc::clone(policy), proof, &self.answers))
    }

    /// Where no token is asked for, whatever page a browser shows could ask, once the name of its host leads here. So a
    /// caller must have meant this machine.
    fn check_host(&self, request: &Request<Incoming>) -> Result<(), Problem> {
        // No browser reaches a Unix domain socket.
        let Some(port) = self.port else { return Ok(()) };
        let host = host(request);
        let meant = host.is_some_and(|host| is_loopback(host, port));
        if meant { Ok(()) } else { Err(misdirected(port)) }
    }
}

fn misdirected(port: u16) -> Problem {
    Problem::new(
        StatusCode::MISDIRECTED_REQUEST,
        format!(
            "this listener asks for no token, and so answers to 127.0.0.1:{port} and localhost:{port} alone, and not to other names in `Host`"
        ),
    )
    .turned_away(Refusal::Host)
}

fn host(request: &Request<Incoming>) -> Option<&str> {
    match request.uri().authority() {
        Some(authority) => Some(authority.as_str()),
        None => request.headers().get(HOST)?.to_str().ok(),
    }
}

/// `localhost`, `127.0.0.1` or `[::1]`, with this port.
fn is_loopback(host: &str, port: u16) -> bool {
    let (name, given) = match host.rsplit_once(':') {
        Some((name, given)) if !given.ends_with(']') => (name, given.parse().ok()),
        _ => (host, [80, 443].contains(&port).then_some(port)),
    };
    let name = name.trim_end_matches('.');
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    given == Some(port)
        && (name.eq_ignore_ascii_case("localhost")
            || address.is_ok_and(|ip| ip.to_canonical().is_loopback()))
}

/// Refuses what a page of another site asks for. What a person opens, in a tab or by a link, is no such request.
fn check_origin(request: &Request<Incoming>) -> Result<(), Problem> {
    let refused = || {
        Problem::new(
            StatusCode::FORBIDDEN,
            "the page of another site has asked for this, and only pages of this server may",
        )
        .turned_away(Refusal::Host)
    };
    let headers = request.headers();
    if let Some(origin) = headers.get(ORIGIN) {
        let site = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
        if site.is_none_or(|(_, site)| Some(site) != host(request)) {
            return Err(refused());
        }
    }
    let is = |name: &str, value: &[u8]| headers.get(name).is_some_and(|it| it.as_bytes() == value);
    let other = headers.contains_key("sec-fetch-site")
        && !is("sec-fetch-site", b"same-origin")
        && !is("sec-fetch-site", b"none");
    let opened = is("sec-fetch-mode", b"navigate") && request.method() == Method::GET;
    if other && !(opened && request.uri().path() == "/") {
        return Err(refused());
    }
    Ok(())
}

/// What is answered without a token: it tells nothing of the stores.
fn is_open(request: &Request<Incoming>) -> bool {
    let read = matches!(*request.method(), Method::GET | Method::HEAD);
    read && ["/", "/healthz", "/readyz"].contains(&request.uri().path())
}

/// The token that a request carries.
fn presented(headers: &HeaderMap) -> Option<&[u8]> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

fn unauthorized(what: &'static str, known: bool) -> Problem {
    let challenge = match known {
        true => "Bearer realm=\"tierstack\", error=\"invalid_token\"",
        false => "Bearer realm=\"tierstack\"",
    };
    Problem::new(StatusCode::UNAUTHORIZED, what)
        .with_header(WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
        .turned_away(Refusal::Token)
}
