"""The same panels at every boundary of a stack, so that the slow layer is seen at a glance."""

from grafana import *

LAYER = variable("layer", "tierstack_layer_depth{@stack}")

BOARD = board(
    "tierstack-layers",
    "tierstack: layers",
    "Every boundary of a stack. Where two neighbours differ, the layer between them makes the difference.",
    [*STACK_VARIABLES, LAYER],
    row(
        "All boundaries",
        graph(
            "Operations", "What reaches each layer. A cache passes on what it does not have.", "ops",
            query("sum by (stack, layer) (stack_layer_op:tierstack_ops:rate5m{@layer})", "{{stack}} {{layer}}"),
        ),
        graph(
            "Reads, 99th percentile", "The last layer that is slow is the one above the cause.", "s",
            query('max by (stack, layer) (stack_layer_op:tierstack_op_duration_seconds:p99_rate5m{@layer, op="get"})', "{{stack}} {{layer}}"), log=True,
        ),
        table(
            "Order of the layers", "0 is where callers enter.", "none",
            query("sort(max by (stack, layer) (tierstack_layer_depth{@layer}))"), width=8,
        ),
        graph(
            "Errors", "By layer and kind, and of each store together. An error is counted at every boundary that it passes.", "ops",
            query("sum by (stack, layer, kind) (rate(tierstack_errors_total{@layer}[$__rate_interval])) > 0 or sum by (stack) (rate(tierstack_errors_total{@layer}[$__rate_interval]))", "{{stack}} {{layer}} {{kind}}"), width=8,
        ),
        graph(
            "Waiting now", "Operations that wait for a disk or a network below each boundary.", "short",
            query("sum by (stack, layer) (tierstack_inflight{@layer})", "{{stack}} {{layer}}"), width=8,
        ),
    ),
    row(
        "Codecs, retries, limits",
        graph(
            "Stored of written bytes", "What is left of the values after `compress` or `encrypt`.", "percentunit",
            query('sum by (stack, layer) (rate(tierstack_codec_bytes_total{@layer, stage="stored", op="write"}[$__rate_interval])) / (sum by (stack, layer) (rate(tierstack_codec_bytes_total{@layer, stage="logical", op="write"}[$__rate_interval])) > 0)', "{{stack}} {{layer}}"), width=8,
        ),
        graph(
            "Attempts beyond the first", "By operation.", "ops",
            query("sum by (stack, layer, op) (rate(tierstack_retries_total{@layer}[$__rate_interval]))", "{{stack}} {{layer}} {{op}}"), width=8,
        ),
        graph(
            "Waits for a permit, 99th percentile", "Of those that had to wait.", "s",
            query("histogram_quantile(0.99, sum by (stack, layer, le) (rate(tierstack_limit_wait_seconds_bucket{@layer}[$__rate_interval])))", "{{stack}} {{layer}}"), width=8,
        ),
    ),
    row(
        "$layer",
        graph(
            "Operations by outcome", "`missing`: there is no such key. `cancelled`: the caller gave up.", "ops",
            query("sum by (op, outcome) (rate(tierstack_ops_total{@layer}[$__rate_interval])) > 0", "{{op}} {{outcome}}"), width=8,
        ),
        heatmap(
            "Duration", "How many operations a second take how long, at this boundary.",
            "tierstack_op_duration_seconds_bucket{@layer}", width=8,
        ),
        graph(
            "Bytes", "Keys and values that pass this boundary.", "binBps",
            query("sum by (op) (rate(tierstack_op_bytes_total{@layer}[$__rate_interval])) > 0", "{{op}}"), width=8,
        ),
        repeat="layer",
    ),
)
