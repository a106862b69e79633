"""Stores over HTTP: connections, answers, and what is turned away."""

from grafana import *

LISTENER = "@process, listener=~\"$listener\""

BOARD = board(
    "tierstack-serve",
    "tierstack: serve",
    "Stores over HTTP: connections, answers, how long they take, and what is turned away.",
    [*PROCESS_VARIABLES, variable("listener", "tierstack_serve_connections{@process}")],
    row(
        "Is it well",
        stat(
            "Ready", "Whether every server has all of its stores open and does not end.", "none",
            query("min(tierstack_serve_ready{@process})"),
            thresholds=steps((None, BAD), (1, GOOD)), mappings={"0": "no", "1": "yes"},
        ),
        stat(
            "Stores that failed to open", "Requests for them are answered 503.", "short",
            query("count(tierstack_serve_store_open{@process} == 0) or vector(0)"),
            thresholds=steps((None, GOOD), (1, BAD)),
        ),
        stat(
            "Answers of 500 and above", "Part of all answers; the worst listener.", "percentunit",
            query(f"max(listener:tierstack_serve_failures:ratio_rate5m{{{LISTENER}}})"),
            thresholds=steps((None, GOOD), (0.001, NOTICE), (0.01, BAD)),
        ),
        stat(
            "Requests", "Answers a second.", "reqps",
            query(f"sum(listener_route_status:tierstack_serve_requests:rate5m{{{LISTENER}}})"),
        ),
        stat(
            "Connections", "Open now.", "short",
            query(f"sum(tierstack_serve_connections{{{LISTENER}}})"),
        ),
        stat(
            "Certificate expires", "The first one to expire.", "dateTimeFromNow",
            query(f"min(tierstack_serve_certificate_expiry_timestamp_seconds{{{LISTENER}}}) * 1000"),
        ),
    ),
    row(
        "What is asked of it",
        graph(
            "Answers by route", "Each class of requests.", "reqps",
            query(f"sum by (route) (listener_route_status:tierstack_serve_requests:rate5m{{{LISTENER}}}) > 0", "{{route}}"), stacked=True,
        ),
        graph(
            "Answers by status", "4xx are the callers', 5xx the server's.", "reqps",
            query(f"sum by (status) (listener_route_status:tierstack_serve_requests:rate5m{{{LISTENER}}})", "{{status}}"), stacked=True,
        ),
        graph(
            "Until the answer begins, 99th percentile", "One of a hundred requests waits this long or longer.", "s",
            query(f"max by (route) (listener_route:tierstack_serve_request_duration_seconds:p99_rate5m{{{LISTENER}}})", "{{route}}"), log=True,
        ),
        heatmap(
            "Until the answer begins", "How many requests a second wait how long.",
            f"tierstack_serve_request_duration_seconds_bucket{{{LISTENER}}}",
        ),
        graph(
            "Bytes", "Bodies of requests and of answers.", "binBps",
            query(f"sum by (direction) (rate(tierstack_serve_bytes_total{{{LISTENER}}}[$__rate_interval]))", "{{direction}}"),
        ),
        graph(
            "Connections", "Open ones, by listener.", "short",
            query(f"sum by (instance, listener) (tierstack_serve_connections{{{LISTENER}}})", "{{instance}} {{listener}}"),
        ),
    ),
    row(
        "What is turned away",
        graph(
            "Refused by cause", "`token`, `right`, `host`: no access. `connections`, `header`, `body`: a limit, or a malformed head.", "reqps",
            query(f"sum by (listener, cause) (rate(tierstack_serve_refused_total{{{LISTENER}}}[$__rate_interval]))", "{{listener}} {{cause}}"), width=8,
        ),
        graph(
            "Slow clients", "Connections and requests that ended as the other side sent or took too slowly.", "short",
            query(f"sum by (listener) (rate(tierstack_serve_slow_clients_total{{{LISTENER}}}[$__rate_interval]))", "{{listener}}"), width=8,
        ),
        graph(
            "New connections", "Many for each request: a client that keeps none open.", "short",
            query(f"sum by (listener) (rate(tierstack_serve_connections_total{{{LISTENER}}}[$__rate_interval]))", "{{listener}}"), width=8,
        ),
    ),
)
