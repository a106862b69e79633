"""How much the caches save, what they cost, and why they forget."""

from grafana import *

LAYER = variable("layer", "tierstack_cache_entries{@stack}")

BOARD = board(
    "tierstack-cache",
    "tierstack: caches",
    "How much each cache saves, what it holds, why it forgets, and how long its loads take.",
    [*STACK_VARIABLES, LAYER],
    row(
        "Is it well",
        stat(
            "Hit ratio", "Reads for which the store below was not asked: from memory, from the disk, known to be missing, or old and allowed.", "percentunit",
            query("sum(stack_layer:tierstack_cache_hits:rate5m{@layer}) / (sum(stack_layer:tierstack_cache_requests:rate5m{@layer}) > 0)"),
        ),
        stat(
            "Against the day before", "The hit ratio as a part of the hit ratio 24 hours ago.", "percentunit",
            query("sum(stack_layer:tierstack_cache_hits:rate5m{@layer}) / (sum(stack_layer:tierstack_cache_requests:rate5m{@layer}) > 0) / ((sum(stack_layer:tierstack_cache_hits:rate5m{@layer} offset 1d) / sum(stack_layer:tierstack_cache_requests:rate5m{@layer} offset 1d)) > 0)"),
            thresholds=steps((None, BAD), (0.7, NOTICE), (0.9, GOOD)),
        ),
        stat(
            "Change feed", "Whether every cache over a store with a change feed is connected to it. While it is not, it keeps nothing.", "none",
            query("min(tierstack_cache_change_feed_connected{@layer})"),
            thresholds=steps((None, BAD), (1, GOOD)), mappings={"0": "no", "1": "yes"},
        ),
        stat(
            "Disks in use", "Whether every cache that has a disk uses it.", "none",
            query("min(tierstack_cache_disk_active{@layer})"),
            thresholds=steps((None, BAD), (1, GOOD)), mappings={"0": "no", "1": "yes"},
        ),
        stat(
            "In memory", "Bytes that the caches hold in memory.", "bytes",
            query("sum(tierstack_cache_bytes{@layer})"),
        ),
        stat(
            "On disk", "Bytes of the files of the caches' disks.", "bytes",
            query("sum(tierstack_cache_disk_bytes{@layer})"),
        ),
    ),
    row(
        "What it saves",
        graph(
            "Reads by result", "Each read once. What is no hit, and is not joined to a load under way, asks the store below.", "ops",
            query("sum by (result) (stack_layer_result:tierstack_cache_requests:rate5m{@layer})", "{{result}}"), stacked=True,
        ),
        graph(
            "Hit ratio", "Of each cache, now and at the same time of the day before.", "percentunit",
            query("min by (stack, layer) (stack_layer:tierstack_cache_hits:ratio_rate5m{@layer})", "{{stack}} {{layer}}"),
            query("min by (stack, layer) (stack_layer:tierstack_cache_hits:ratio_rate5m{@layer} offset 1d)", "{{stack}} {{layer}}, the day before"),
        ),
        graph(
            "Loads, 99th percentile", "How long a cache waits for the store below, where that does not answer at once.", "s",
            query("max by (stack, layer) (stack_layer:tierstack_cache_load_duration_seconds:p99_rate5m{@layer})", "{{stack}} {{layer}}"), log=True,
        ),
        heatmap(
            "Loads by duration", "How many loads a second take how long.",
            "tierstack_cache_load_duration_seconds_bucket{@layer}",
        ),
    ),
    row(
        "What it holds",
        graph(
            "Bytes in memory", "What each cache holds in memory.", "bytes",
            query("sum by (stack, layer) (tierstack_cache_bytes{@layer})", "{{stack}} {{layer}}"),
        ),
        graph(
            "Entries in memory", "What each cache holds in memory.", "short",
            query("sum by (stack, layer) (tierstack_cache_entries{@layer})", "{{stack}} {{layer}}"),
        ),
        graph(
            "Bytes on disk", "The files of each cache's disk.", "bytes",
            query("sum by (stack, layer) (tierstack_cache_disk_bytes{@layer})", "{{stack}} {{layer}}"),
        ),
        graph(
            "Entries on disk", "Entries there and on their way to it; memory holds an index of them.", "short",
            query("sum by (stack, layer) (tierstack_cache_disk_entries{@layer})", "{{stack}} {{layer}}"),
        ),
    ),
    row(
        "Why it forgets",
        graph(
            "Evictions by cause", "`size`: the capacity is too small for what is read. `expired`, `idle`: past their time. `disk`: the disk is too small.", "ops",
            query("sum by (stack, layer, cause) (rate(tierstack_cache_evictions_total{@layer}[$__rate_interval]))", "{{stack}} {{layer}} {{cause}}"),
        ),
        graph(
            "Invalidations by cause", "`foreign`: others wrote. `lost`, `all`: everything was dropped. `key`, `prefix`: somebody asked for it.", "ops",
            query("sum by (stack, layer, cause) (rate(tierstack_cache_invalidations_total{@layer}[$__rate_interval]))", "{{stack}} {{layer}} {{cause}}"),
        ),
        graph(
            "What the disk did not take or give", "`queue`: loads come faster than the disk writes. `damaged`, `io`: the disk fails.", "ops",
            query("sum by (stack, layer, cause) (rate(tierstack_cache_disk_drops_total{@layer}[$__rate_interval]))", "{{stack}} {{layer}} {{cause}}"),
        ),
        graph(
            "Writes that are kept", "With `on_write: keep`: keys that a write left in the cache, and those that it could not.", "ops",
            query("sum by (stack, layer, outcome) (rate(tierstack_cache_writes_total{@layer}[$__rate_interval]))", "{{stack}} {{layer}} {{outcome}}"),
        ),
        graph(
            "Refreshes", "Loads that began before their answers were needed.", "ops",
            query("sum by (stack, layer, outcome) (rate(tierstack_cache_refreshes_total{@layer}[$__rate_interval]))", "{{stack}} {{layer}} {{outcome}}"),
        ),
        graph(
            "Warm start", "Keys that were loaded after a start, as they had been read before it.", "short",
            query("sum by (stack, layer) (increase(tierstack_cache_warm_start_keys_total{@layer}[$__rate_interval]))", "{{stack}} {{layer}}"),
        ),
    ),
)
