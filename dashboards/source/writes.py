"""What is acknowledged and not in the store below yet, and what keeps it from there."""

from grafana import *

LAYER = variable("layer", "tierstack_writeback_dirty_bytes{@stack}")

BOARD = board(
    "tierstack-writes",
    "tierstack: writes",
    "What write_back has acknowledged and the store below does not have yet, how long that waits, and what keeps it from there.",
    [*STACK_VARIABLES, LAYER],
    row(
        "Is it well",
        stat(
            "Acknowledges writes", "Whether every buffer takes writes. One whose journal failed, or whose store below refused a batch for good or is another one, takes none until an operator acts.", "none",
            query("1 - max(tierstack_writeback_failed{@layer})"),
            thresholds=steps((None, BAD), (1, GOOD)), mappings={"0": "no", "1": "yes"},
        ),
        stat(
            "Fullest buffer", "Dirty bytes as a part of `max_dirty`. At 100 % writers wait.", "percentunit",
            query("max(stack_layer:tierstack_writeback_dirty_bytes:ratio_max{@layer})"),
            thresholds=steps((None, GOOD), (0.5, NOTICE), (0.8, BAD)),
        ),
        stat(
            "Oldest dirty write", "How long the write that has waited longest has been without the store below.", "s",
            query("max(stack_layer:tierstack_writeback_oldest_dirty:age_seconds{@layer}) or vector(0)"),
            thresholds=steps((None, GOOD), (60, NOTICE), (300, BAD)),
        ),
        stat(
            "Writers that wait", "Writers that wait for room now.", "short",
            query("sum(tierstack_writeback_waiting{@layer})"),
            thresholds=steps((None, GOOD), (1, NOTICE)),
        ),
        stat(
            "Fullest journal", "Bytes of the journal as a part of what it may hold. At 100 % writers wait.", "percentunit",
            query("max(stack_layer:tierstack_writeback_journal_bytes:ratio_max{@layer}) or vector(0)"),
            thresholds=steps((None, GOOD), (0.5, NOTICE), (0.8, BAD)),
        ),
        stat(
            "Flushes that fail", "The part of the flushes that the store below did not take.", "percentunit",
            query("max(stack_layer:tierstack_writeback_flush_failures:ratio_rate5m{@layer})"),
            thresholds=steps((None, GOOD), (0.01, NOTICE), (0.5, BAD)),
        ),
    ),
    row(
        "What keeps it back",
        graph(
            "Opened without the store below", "1 while the store below, which was away when the stack was opened, has not come since. Writes go to the journal, reads of other keys fail.", "short",
            query("max by (stack, layer) (tierstack_writeback_store_away{@layer})", "{{stack}} {{layer}}"),
        ),
        graph(
            "Free on the disk of the journal", "Where less is free than the journal may still take, writers are going to wait.", "bytes",
            query("min by (stack, layer) (tierstack_writeback_journal_disk_free_bytes{@layer} >= 0)", "{{stack}} {{layer}}, free"),
            query("max by (stack, layer) (tierstack_writeback_journal_max_bytes{@layer} - tierstack_writeback_journal_bytes{@layer})", "{{stack}} {{layer}}, may still be taken"),
        ),
    ),
    row(
        "What waits",
        graph(
            "Dirty bytes", "Acknowledged, and not in the store below. Writers wait at the upper line.", "bytes",
            query("sum by (stack, layer) (tierstack_writeback_dirty_bytes{@layer})", "{{stack}} {{layer}}"),
            query("sum by (stack, layer) (tierstack_writeback_max_dirty_bytes{@layer})", "{{stack}} {{layer}}, at most"),
        ),
        graph(
            "Dirty keys", "Keys whose newest write is not in the store below.", "short",
            query("sum by (stack, layer) (tierstack_writeback_dirty_entries{@layer})", "{{stack}} {{layer}}"),
        ),
        graph(
            "Age of the oldest dirty write", "As a rule little more than `flush_after`. It rises while the store below takes nothing.", "s",
            query("max by (stack, layer) (stack_layer:tierstack_writeback_oldest_dirty:age_seconds{@layer} or 0 * tierstack_writeback_oldest_dirty_timestamp_seconds{@layer})", "{{stack}} {{layer}}"),
        ),
        graph(
            "Bytes of the journal", "It keeps what is not flushed, each write of a key, and what waits to be released.", "bytes",
            query("sum by (stack, layer) (tierstack_writeback_journal_bytes{@layer})", "{{stack}} {{layer}}"),
            query("sum by (stack, layer) (tierstack_writeback_journal_max_bytes{@layer})", "{{stack}} {{layer}}, at most"),
        ),
    ),
    row(
        "What comes and goes",
        graph(
            "Acknowledged batches", "By what had them then: the `journal` on the disk, `memory` alone, the store below (`through`).", "ops",
            query("sum by (stack, layer, ack) (rate(tierstack_writeback_acknowledged_total{@layer}[$__rate_interval]))", "{{stack}} {{layer}} {{ack}}"),
        ),
        graph(
            "Entries", "`flushed`: taken by the store below. `coalesced`: replaced by a later write of their key, so the store below was spared them.", "ops",
            query("sum by (stack, layer) (rate(tierstack_writeback_flushed_entries_total{@layer}[$__rate_interval]))", "{{stack}} {{layer}} flushed"),
            query("sum by (stack, layer) (rate(tierstack_writeback_coalesced_total{@layer}[$__rate_interval]))", "{{stack}} {{layer}} coalesced"),
        ),
        graph(
            "Flushes by outcome", "`failed`: tried again, in order. `refused`: for good, so that nothing is acknowledged any more.", "ops",
            query("sum by (stack, layer, outcome) (rate(tierstack_writeback_flushes_total{@layer}[$__rate_interval]))", "{{stack}} {{layer}} {{outcome}}"),
        ),
        heatmap(
            "Flushes by duration", "How many flushes a second take the store below how long.",
            "tierstack_writeback_flush_duration_seconds_bucket{@layer}",
        ),
    ),
    row(
        "What writers feel",
        graph(
            "Writers that wait", "For room in the buffer or the journal.", "short",
            query("sum by (stack, layer) (tierstack_writeback_waiting{@layer})", "{{stack}} {{layer}}"), width=8,
        ),
        graph(
            "Time spent waiting", "Seconds that writers waited for room, in each second. Above 1, more than one waits all the time.", "none",
            query("sum by (stack, layer) (rate(tierstack_writeback_wait_seconds_sum{@layer}[$__rate_interval]))", "{{stack}} {{layer}}"), width=8,
        ),
        graph(
            "Writes without room", "Writes that failed, as there was no room within their deadline.", "ops",
            query("sum by (stack, layer) (rate(tierstack_writeback_timeouts_total{@layer}[$__rate_interval]))", "{{stack}} {{layer}}"), width=8,
        ),
        graph(
            "Takes no writes", "1 while no write is acknowledged, by cause.", "short",
            query("max by (stack, layer, cause) (tierstack_writeback_failed{@layer})", "{{stack}} {{layer}} {{cause}}"),
        ),
        graph(
            "Replayed batches", "Read from the journal when a store was opened, as the store below did not have them. After each end without a close there are some.", "short",
            query("sum by (stack, layer) (increase(tierstack_writeback_replayed_total{@layer}[$__rate_interval]))", "{{stack}} {{layer}}"),
        ),
    ),
)
