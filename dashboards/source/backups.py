"""Whether a restore would bring back what it should."""

from grafana import *

BOARD = board(
    "tierstack-backups",
    "tierstack: backups",
    "How old the last backup of each store is, whether backups fail, and what they move.",
    STACK_VARIABLES,
    row(
        "Is it well",
        stat(
            "Oldest backup", "Age of the last backup in intervals of its schedule; the worst store.", "none",
            query("max(stack_layer_kind:tierstack_backup_age:ratio_expected{@stack})"),
            thresholds=steps((None, GOOD), (2, NOTICE), (3, BAD)), width=6,
        ),
        stat(
            "Stores that never had one", "Stores with a schedule and without a backup.", "short",
            query("count(tierstack_backup_last_success_timestamp_seconds{@stack} == 0 and on (job, instance, stack, layer, kind) tierstack_backup_expected_interval_seconds > 0) or vector(0)"),
            thresholds=steps((None, GOOD), (1, BAD)), width=6,
        ),
        stat(
            "Failures", "Backups that failed within the time range.", "short",
            query("sum(increase(tierstack_backup_failures_total{@stack}[$__range]))"),
            thresholds=steps((None, GOOD), (1, NOTICE)), width=6,
        ),
        stat(
            "Last backup", "When one last succeeded, of the store that has waited longest.", "dateTimeFromNow",
            query("min(tierstack_backup_last_success_timestamp_seconds{@stack} > 0) * 1000"), width=6,
        ),
    ),
    row(
        "How old",
        graph(
            "Age of the last backup", "What was written since is lost with the store.", "s",
            query("max by (stack, kind) (stack_layer_kind:tierstack_backup_age:seconds{@stack})", "{{stack}} {{kind}}"),
            query("max by (stack, kind) (tierstack_backup_expected_interval_seconds{@stack} > 0)", "{{stack}} {{kind}}, expected"),
        ),
        graph(
            "Age in intervals", "1 is as scheduled; alerts begin at 2 and 3.", "none",
            query("max by (stack, kind) (stack_layer_kind:tierstack_backup_age:ratio_expected{@stack})", "{{stack}} {{kind}}"),
        ),
    ),
    row(
        "What is moved",
        graph(
            "Bytes by stage", "`read` from the store, of which `reused` were in the place already, and `uploaded` were not.", "binBps",
            query("sum by (stack, stage) (rate(tierstack_backup_bytes_total{@stack}[$__rate_interval]))", "{{stack}} {{stage}}"),
        ),
        graph(
            "Failures", "A backup that fails is tried again after a minute, then two, up to an hour.", "short",
            query("sum by (stack) (increase(tierstack_backup_failures_total{@stack}[$__rate_interval]))", "{{stack}}"),
        ),
    ),
)
