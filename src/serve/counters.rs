//! What a server counts of itself. Every series is there from the start, at 0.

use std::time::Duration;

use axum::http::StatusCode;

use super::route::ROUTES;
use crate::config::ListenerConfig;
use crate::telemetry::{Counter, Gauge, Histogram, Labels, names, rehearse};

/// Why a request or a connection was turned away. A problem carries it to where it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Token,
    Right,
    /// A foreign `Host`, or the page of another site.
    Host,
    Connections,
    Header,
    Body,
    /// The other side was too slow.
    Slow,
}

const STATUSES: [&str; 4] = ["2xx", "3xx", "4xx", "5xx"];

/// What is counted of a listener.
pub(super) struct Counters {
    pub(super) labels: Labels,
    pub(super) connections: Gauge,
    pub(super) accepted: Counter,
    pub(super) bytes_in: Counter,
    pub(super) bytes_out: Counter,
    requests: [[Counter; STATUSES.len()]; ROUTES.len()],
    durations: [Histogram; ROUTES.len()],
    slow: Counter,
    token: Counter,
    right: Counter,
    host: Counter,
    full: Counter,
    header: Counter,
    body: Counter,
}

impl Counters {
    pub(super) fn new(listener: &str) -> Self {
        let labels = Labels::of("listener", listener);
        let requests = |route| {
            STATUSES.map(|status| {
                labels.counter(names::SERVE_REQUESTS, &[("route", route), ("status", status)])
            })
        };
        let refused = |cause| labels.counter(names::SERVE_REFUSED, &[("cause", cause)]);
        let bytes = |way| labels.counter(names::SERVE_BYTES, &[("direction", way)]);
        Self {
            connections: labels.gauge(names::SERVE_CONNECTIONS, &[]),
            accepted: labels.counter(names::SERVE_ACCEPTED, &[]),
            bytes_in: bytes("in"),
            bytes_out: bytes("out"),
            requests: ROUTES.map(requests),
            durations: ROUTES
                .map(|route| labels.histogram(names::SERVE_DURATION, &[("route", route)])),
            slow: labels.counter(names::SERVE_SLOW, &[]),
            token: refused("token"),
            right: refused("right"),
            host: refused("host"),
            full: refused("connections"),
            header: refused("header"),
            body: refused("body"),
            labels,
        }
    }

    /// Counts an answer to what is at that place of the routes.
    pub(super) fn answered(&self, route: usize, status: StatusCode, took: Duration) {
        let class = usize::from(status.as_u16() / 100).saturating_sub(2);
        if let Some(counter) = self.requests.get(route).and_then(|of| of.get(class)) {
            counter.increment(1);
        }
        if let Some(durations) = self.durations.get(route) {
            durations.record(took);
        }
    }

    /// Counts what was turned away.
    pub(super) fn refused(&self, why: Refusal) {
        let counter = match why {
            Refusal::Token => &self.token,
            Refusal::Right => &self.right,
            Refusal::Host => &self.host,
            Refusal::Connections => &self.full,
            Refusal::Header => &self.header,
            Refusal::Body => &self.body,
            Refusal::Slow => &self.slow,
        };
        counter.increment(1);
    }
}

/// How many series listeners like these have.
pub(super) fn series_of(listeners: &[ListenerConfig]) -> usize {
    let register = || {
        for (at, listener) in listeners.iter().enumerate() {
            // Its place stands for its name: of two that take a free port, the names are not known yet.
            let counters = Counters::new(&at.to_string());
            if listener.tls.is_some() {
                drop(counters.labels.gauge(names::SERVE_CERTIFICATE, &[]));
            }
        }
    };
    rehearse(register).series()
}

/// An open connection, until it is dropped.
pub(super) struct Open(Gauge);

impl Open {
    pub(super) fn new(counters: &Counters) -> Self {
        counters.accepted.increment(1);
        counters.connections.increment(1);
        Self(counters.connections.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.decrement(1);
    }
}
