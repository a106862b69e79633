"""Is it well, how much is asked of it, and where to look next."""

from grafana import *

TOP = "on (job, instance, stack, layer) tierstack_layer_depth{@stack} == 0"

BOARD = board(
    "tierstack-overview",
    "tierstack: overview",
    "Every store of every process: is it well, what is asked of it, and where to look next.",
    STACK_VARIABLES,
    row(
        "Is it well",
        stat(
            "Stores not open", "Served stores that did not open, over all processes. Requests for them fail.", "short",
            query("count(tierstack_serve_store_open{@stack} == 0) or vector(0)"),
            thresholds=steps((None, GOOD), (1, BAD)),
        ),
        stat(
            "Alerts", "Alerts of tierstack that fire now. docs/runbook.md has a section for each.", "short",
            query('count(ALERTS{alertname=~"Tierstack.+", alertstate="firing", @process}) or vector(0)'),
            thresholds=steps((None, GOOD), (1, BAD)),
        ),
        stat(
            "Failures", "Operations of callers that fail by no fault of theirs; the worst store.", "percentunit",
            query("max(stack:tierstack_failures:ratio_rate5m{@stack})"),
            thresholds=steps((None, GOOD), (0.001, NOTICE), (0.0144, BAD)),
        ),
        stat(
            "Reads, 99th percentile", "One of a hundred reads takes this long or longer; the slowest store.", "s",
            query('max(stack_op:tierstack_op_duration_seconds:p99_rate5m{@stack, op="get"})'),
        ),
        stat(
            "Hit ratio", "Reads for which a cache did not ask the store below it.", "percentunit",
            query("sum(stack_layer:tierstack_cache_hits:rate5m{@stack}) / (sum(stack_layer:tierstack_cache_requests:rate5m{@stack}) > 0)"),
        ),
        stat(
            "Oldest backup", "Age of the last backup in intervals of its schedule; the worst store. More than 1 is late.", "none",
            query("max(stack_layer_kind:tierstack_backup_age:ratio_expected{@stack})"),
            thresholds=steps((None, GOOD), (2, NOTICE), (3, BAD)),
        ),
    ),
    row(
        "What is asked of it",
        graph(
            "Operations", "Operations of callers, by store and operation.", "ops",
            query("sum by (stack, op) (stack_op:tierstack_ops:rate5m{@stack}) > 0", "{{stack}} {{op}}"),
        ),
        graph(
            "Bytes", "Keys and values that callers read and write.", "binBps",
            query("sum by (stack, op) (stack_op:tierstack_op_bytes:rate5m{@stack}) > 0", "{{stack}} {{op}}"),
        ),
        graph(
            "How long callers wait", "Median and 99th percentile of all operations, those that are answered from memory among them.", "s",
            query('max by (stack, op) (stack_op:tierstack_op_duration_seconds:p50_rate5m{@stack, op=~"get|get_many|scan|write"})', "{{stack}} {{op}} p50"),
            query('max by (stack, op) (stack_op:tierstack_op_duration_seconds:p99_rate5m{@stack, op=~"get|get_many|scan|write"})', "{{stack}} {{op}} p99"),
            log=True,
        ),
        graph(
            "Waiting now", "Operations of callers that wait for a disk or a network.", "short",
            query(f"sum by (stack) (tierstack_inflight{{@stack}} and {TOP})", "{{stack}}"),
        ),
    ),
    row(
        "Why",
        graph(
            "Failures by kind", "Failed operations of callers, by what went wrong, and of each store together.", "ops",
            query("sum by (stack, kind) (stack_kind:tierstack_failures:rate5m{@stack}) > 0 or sum by (stack) (stack_kind:tierstack_failures:rate5m{@stack})", "{{stack}} {{kind}}"),
        ),
        graph(
            "Reads at each layer, 99th percentile", "The layer below which the time goes is the last one that is slow.", "s",
            query('max by (stack, layer) (stack_layer_op:tierstack_op_duration_seconds:p99_rate5m{@stack, op="get"})', "{{stack}} {{layer}}"),
            log=True,
        ),
        graph(
            "Hit ratio of each cache", "Reads for which a cache did not ask the store below it.", "percentunit",
            query("min by (stack, layer) (stack_layer:tierstack_cache_hits:ratio_rate5m{@stack})", "{{stack}} {{layer}}"),
        ),
        graph(
            "Bytes kept", "What each store and its caches have in memory, and what the store has stored. One that does not tell is left out.", "bytes",
            query("sum by (stack, place) (tierstack_store_bytes{@stack}) > 0", "{{stack}} {{place}}"),
        ),
        graph(
            "Entries kept", "What each store has, as precisely as it counts. One that does not tell is left out.", "short",
            query("sum by (stack) (tierstack_store_entries{@stack}) > 0", "{{stack}}"),
        ),
        table(
            "Processes", "Version and features of each process, and how long it has run.", "s",
            query("(time() - process_start_time_seconds{@process}) * on (job, instance) group_left (version, features) tierstack_info{@process}"),
        ),
        stat(
            "Answers from memory that are timed", "The others are counted by these. Operations that wait are all timed.", "percentunit",
            query("max(tierstack_sample_ratio{@process})"), width=24,
        ),
    ),
)
