"""The whole: is it safe, what is decided, who and what, how fast, and the sidecar itself."""

from __future__ import annotations

from grafana import A, MINE, PATIENCE, Json, bars, colours, dashboard, heatmap, lines, or_zero, per_plugin, quantiles, rate, share, stat, steps, target, values


def overview() -> Json:
    safe = [
        stat(
            "Instances up",
            "How many instances Prometheus can scrape. While none is up, every apply is refused.",
            or_zero(f"sum(up{{{MINE}}})"),
            thresholds=steps((None, "red"), (1, "green")),
        ),
        stat(
            "Certificate days left",
            "Days until the first certificate expires. Made certificates are renewed 30 days before.",
            f"(min({A}certificate_expiration_timestamp_seconds{{{MINE}}}) - time()) / 86400",
            decimals=0,
            thresholds=steps((None, "red"), (2, "orange"), (14, "green")),
            nothing="TLS is off",
        ),
        stat(
            "Configurations in force",
            "Distinct configuration hashes. More than one, for longer than a rollout takes, is drift.",
            or_zero(f"count(count by (hash) ({A}config_info{{{MINE}}}))"),
            thresholds=steps((None, "red"), (1, "green"), (2, "red")),
        ),
        stat(
            "Last good load",
            "When a configuration was last loaded, by the instance where that is longest ago.",
            f"min({A}config_reload_last_success_timestamp_seconds{{{MINE}}}) * 1000",
            unit="dateTimeFromNow",
        ),
        stat(
            "Reload",
            "Whether the last reload succeeded everywhere. If not, the last good configuration stays in force.",
            f"min({A}config_reload_last_successful{{{MINE}}})",
            mappings=values({"0": ("failing", "red"), "1": ("good", "green")}),
        ),
        stat(
            "Version",
            "The versions that run.",
            f"count by (version) ({A}build_info{{{MINE}}})",
            legend="{{version}}",
            name=True,
        ),
    ]
    decisions = [
        lines(
            "Decisions",
            "Reviews answered, by decision.",
            target(rate(f"{A}request_total", "decision"), "{{decision}}"),
            unit="reqps",
            stacked=True,
            overrides=colours(["allowed", "patched", "denied"]),
        ),
        lines(
            "Denied and patched share",
            "Of all reviews, how many are denied and how many changed.",
            target(share("denied", f"{A}request_total", MINE), "denied"),
            target(share("patched", f"{A}request_total", MINE), "patched"),
            unit="percentunit",
            overrides=colours(["patched", "denied"]),
            most=1,
        ),
        lines(
            "Enforced and monitored",
            "Denials of enforced plugins, reviews denied by a failure alone, and what monitored plugins would have done.",
            target(or_zero(rate(f"{A}plugin_rejection_total", "")), "denied"),
            target(rate(f"{A}request_failed_total", ""), "failed"),
            target(or_zero(rate(f"{A}would_deny_total", "")), "would deny"),
            target(or_zero(rate(f"{A}would_patch_total", "")), "would patch"),
            unit="reqps",
            overrides=colours(["denied", "would deny", "would patch"]),
        ),
    ]
    failed_open = per_plugin(f"sum by (plugin) (increase({A}plugin_fail_open_total{{{MINE}}}[$__range]))")
    who = [
        bars(
            "Plugins that deny most",
            "Denials and denying faults of each plugin in the range shown.",
            target(
                f"topk(10, sum by (plugin) (increase({A}plugin_rejection_total{{{MINE}}}[$__range])))",
                "{{plugin}}",
                instant=True,
            ),
            thresholds=steps((None, "red")),
            width=6,
        ),
        bars(
            "Failed open",
            "How often each plugin failed and was passed over, since its failurePolicy is Ignore, in the range shown.",
            target(f"topk(10, {failed_open})", "{{plugin}}", instant=True),
            thresholds=steps((None, "green"), (0.5, "orange")),
            width=6,
        ),
        lines(
            "Reviews by kind",
            "Reviews answered of runs, fleets, volumes and gateways.",
            target(rate(f"{A}request_total", "kind"), "{{kind}}"),
            unit="reqps",
            stacked=True,
            width=6,
        ),
        lines(
            "Denied by kind",
            "Denied reviews of runs, fleets, volumes and gateways.",
            target(rate(f"{A}request_total", "kind", f'{MINE}, decision="denied"'), "{{kind}}"),
            unit="reqps",
            stacked=True,
            width=6,
        ),
    ]
    latency = [
        lines(
            "Time of a review",
            "From the whole request to its answer.",
            *quantiles(f"{A}request_duration_seconds"),
            unit="s",
            width=6,
        ),
        heatmap(
            "Reviews by time",
            "How many reviews took how long.",
            f"{A}request_duration_seconds_bucket{{{MINE}}}",
            width=6,
        ),
        bars(
            f"Share of the server's {PATIENCE} s",
            f"The slowest 1 % of reviews, and the chain's deadline, of the {PATIENCE} s that the dstack server waits.",
            target(
                or_zero(
                    f"histogram_quantile(0.99, {rate(f'{A}request_duration_seconds_bucket', 'le')}) / {PATIENCE} >= 0"
                ),
                "p99",
                instant=True,
            ),
            target(f"max({A}deadline_seconds{{{MINE}}}) / {PATIENCE}", "deadline", instant=True),
            unit="percentunit",
            thresholds=steps((None, "green"), (0.5, "orange"), (0.9, "red")),
            most=1,
            width=4,
        ),
        lines(
            "p99 of each plugin",
            "The slowest 1 % of each plugin's calls.",
            target(
                per_plugin(
                    f"(histogram_quantile(0.99, {rate(f'{A}plugin_duration_seconds_bucket', 'le, plugin')}) >= 0)"
                ),
                "{{plugin}}",
            ),
            unit="s",
            width=8,
        ),
    ]
    errors = f"sum by (reason) (increase({A}connection_error_total{{{MINE}}}[$__rate_interval])) > 0"
    refused = f"sum by (code) (increase({A}http_error_total{{{MINE}}}[$__rate_interval])) > 0"
    sidecar = [
        lines(
            "In flight",
            "Reviews in hand and open connections.",
            target(f"sum({A}in_flight_requests{{{MINE}}})", "reviews"),
            target(f"sum({A}connections{{{MINE}}})", "connections"),
            unit="short",
            width=6,
        ),
        lines(
            "Used of the limits",
            "Beyond the limit, reviews wait and are then denied; without free file descriptors, nobody can connect.",
            target(f"max({A}in_flight_requests{{{MINE}}} / {A}in_flight_requests_limit{{{MINE}}})", "reviews in hand"),
            target(f"max(process_open_fds{{{MINE}}} / process_max_fds{{{MINE}}})", "file descriptors"),
            unit="percentunit",
            most=1,
            width=6,
        ),
        lines(
            "Shed and refused",
            "Reviews denied because too many were in hand, and requests that were no review, by HTTP status.",
            target(f"sum(increase({A}shed_total{{{MINE}}}[$__rate_interval]))", "shed"),
            target(or_zero(refused, "code"), "status {{code}}"),
            unit="short",
            width=6,
        ),
        lines(
            "Connection errors",
            "Connections that ended badly, by reason. handshake: the caller trusts another CA. closed: a probe.",
            target(or_zero(errors, "reason"), "{{reason}}"),
            unit="short",
            width=6,
        ),
        lines(
            "Audit",
            "Audit events given to the sinks, those that a sink did not take, and those that an HTTP receiver took.",
            target(rate(f"{A}audit_event_total", ""), "events"),
            target(or_zero(rate(f"{A}audit_error_total", "sink"), "sink"), "not taken: {{sink}}"),
            target(or_zero(rate(f"{A}audit_shipped_total", "sink"), "sink"), "shipped: {{sink}}"),
            unit="cps",
            width=6,
        ),
        lines(
            "Audit losses",
            "Audit events that are lost, by sink and reason, and reviews denied because theirs could not be written.",
            target(
                or_zero(
                    f"sum by (sink, reason) (increase({A}audit_dropped_total{{{MINE}}}[$__rate_interval]))", "sink"
                ),
                "{{sink}} {{reason}}",
            ),
            target(
                or_zero(f"sum(increase({A}audit_requests_rejected_total{{{MINE}}}[$__rate_interval]))"),
                "reviews denied",
            ),
            unit="short",
            width=6,
        ),
        lines(
            "Audit backlog",
            "Audit events that wait in memory, and those that wait on disk for an HTTP receiver.",
            target(or_zero(f"sum by (sink) ({A}audit_backlog_events{{{MINE}}})", "sink"), "memory: {{sink}}"),
            target(or_zero(f"sum by (sink) ({A}audit_spool_events{{{MINE}}})", "sink"), "spool: {{sink}}"),
            unit="short",
            width=6,
        ),
        lines(
            "Audit spool",
            "Bytes on disk of audit events that wait for an HTTP receiver.",
            target(or_zero(f"sum by (sink) ({A}audit_spool_bytes{{{MINE}}})", "sink"), "{{sink}}"),
            unit="bytes",
            width=6,
        ),
        lines(
            "Audit write time",
            "Time of one write of a group of audit events, until it was on disk where the mode asks for that.",
            *quantiles(f"{A}audit_write_duration_seconds"),
            unit="s",
            width=6,
        ),
        lines(
            "Traces",
            "Spans that the receiver of traces took, those that wait, and those that are lost, by reason. "
            "None in a binary without the feature otlp.",
            target(f"sum(increase({A}trace_spans_exported_total{{{MINE}}}[$__rate_interval]))", "taken"),
            target(f"sum({A}trace_spans_waiting{{{MINE}}})", "wait"),
            target(
                f"sum by (reason) (increase({A}trace_spans_dropped_total{{{MINE}}}[$__rate_interval]))", "lost: {{reason}}"
            ),
            unit="short",
            width=6,
        ),
        lines(
            "Memory",
            "Memory in RAM of each instance, and of its workers of Python plugins.",
            target(f"process_resident_memory_bytes{{{MINE}}}", "{{instance}}"),
            target(
                or_zero(f"sum by (instance) ({A}python_worker_resident_memory_bytes{{{MINE}}})", "instance"),
                "workers: {{instance}}",
            ),
            unit="bytes",
            width=6,
        ),
        lines(
            "CPU and threads",
            "CPU seconds a second, without the workers of Python plugins, and threads of the busiest instance.",
            target(f"max(rate(process_cpu_seconds_total{{{MINE}}}[$__rate_interval]))", "CPUs"),
            target(f"max(process_threads{{{MINE}}})", "threads"),
            unit="short",
            width=6,
        ),
        lines(
            "Uptime and reloads",
            "Minutes since the youngest instance started, at most an hour, and reloads by result.",
            target(f"clamp_max(min(time() - process_start_time_seconds{{{MINE}}}) / 60, 60)", "minutes up"),
            target(f"sum by (result) (increase({A}config_reload_total{{{MINE}}}[$__rate_interval]))", "{{result}}"),
            unit="short",
            width=6,
        ),
    ]
    return dashboard(
        "dstack-admission-overview",
        "dstack-admission / overview",
        "Is it safe, what is decided and by whom, how fast, and how the sidecar itself does.",
        [],
        {
            "Is it safe?": safe,
            "Decisions": decisions,
            "Who and what": who,
            "Latency": latency,
            "Sidecar": sidecar,
        },
    )
