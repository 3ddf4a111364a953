"""One plugin: what it is, what it decides, how it fails and how long it takes."""

from __future__ import annotations

from grafana import A, MINE, QUANTILES, Json, colours, dashboard, heatmap, lines, or_zero, quantiles, rate, stat, steps, target, values, variable


def plugin() -> Json:
    one = f'{MINE}, plugin="$plugin"'
    duration = f"{A}plugin_duration_seconds"

    def counted(metric: str) -> str:
        return or_zero(f"sum(increase({A}{metric}{{{one}}}[$__range]))")

    def total(title: str, description: str, metric: str, bad: str | None = None) -> Json:
        thresholds = steps((None, "green"), (0.5, bad)) if bad else None
        return stat(title, description, counted(metric), unit="short", decimals=0, thresholds=thresholds)

    info = f"{A}plugin_info{{{one}}}"
    what = [
        stat("Kind", "What the plugin is.", f"count by (type) ({info})", legend="{{type}}", name=True),
        stat(
            "Mode",
            "A plugin that monitors can neither deny nor change.",
            f"count by (mode) ({info})",
            legend="{{mode}}",
            name=True,
        ),
        stat(
            "Failure policy",
            "Fail: its fault denies the review. Ignore: its fault is passed over.",
            f"count by (failure_policy) ({info})",
            legend="{{failure_policy}}",
            name=True,
        ),
        stat(
            "Circuit breaker",
            "Open: a remote plugin is not asked for now, since its last calls failed; its failure policy decides.",
            or_zero(f"max({A}plugin_breaker_open{{{one}}})"),
            mappings=values({"0": ("closed", "green"), "1": ("open", "red")}),
        ),
        total("Failed open", "Faults that were passed over, in the range shown.", "plugin_fail_open_total", "red"),
        total(
            "Exempted", "Reviews that an exemption kept from the plugin, in the range shown.", "plugin_exempted_total"
        ),
    ]
    decides = [
        lines(
            "Calls by kind",
            "How often the plugin is asked.",
            target(or_zero(rate(f"{duration}_count", "kind", one), "kind"), "{{kind}}"),
            unit="reqps",
            stacked=True,
        ),
        lines(
            "Denials by kind",
            "Reviews that the plugin denied, by its verdict and not by a fault.",
            target(
                or_zero(rate(f"{A}plugin_rejection_total", "kind", f'{one}, error_type="no_error"'), "kind"),
                "{{kind}}",
            ),
            unit="reqps",
            stacked=True,
        ),
        lines(
            "Would deny, would patch",
            "What the plugin would have done, if it only monitors.",
            target(or_zero(rate(f"{A}would_deny_total", "", one)), "would deny"),
            target(or_zero(rate(f"{A}would_patch_total", "", one)), "would patch"),
            unit="reqps",
            overrides=colours(["would deny", "would patch"]),
        ),
    ]
    faults = [
        lines(
            "Faults that deny",
            "What went wrong in calls that denied the review for that reason.",
            target(
                or_zero(
                    rate(f"{A}plugin_rejection_total", "error_type", f'{one}, error_type!="no_error"'), "error_type"
                ),
                "{{error_type}}",
            ),
            unit="reqps",
            stacked=True,
        ),
        lines(
            "Faults passed over",
            "What went wrong in calls whose fault was passed over (failurePolicy Ignore), or that were only monitored.",
            target(
                or_zero(rate(f"{A}plugin_fail_open_total", "error_type", one) + " > 0", "error_type"), "{{error_type}}"
            ),
            target(or_zero(rate(f"{A}monitored_fault_total", "", one)), "monitored"),
            unit="reqps",
            stacked=True,
        ),
        lines(
            "Patch conflicts",
            "Patches of a fanOut that disagreed with another plugin's.",
            target(or_zero(rate(f"{A}patch_conflict_total", "kind", one), "kind"), "{{kind}}"),
            unit="reqps",
            stacked=True,
        ),
    ]
    latency = [
        lines("Time of a call", "From asking the plugin to its answer.", *quantiles(duration, one), unit="s"),
        heatmap("Calls by time", "How many calls took how long.", f"{duration}_bucket{{{one}}}", width=8),
        lines(
            "p99 by phase",
            "The slowest 1 % of calls in the mutating and in the validating phase.",
            target(
                or_zero(f"histogram_quantile(0.99, {rate(f'{duration}_bucket', 'le, phase', one)}) >= 0", "phase"),
                "{{phase}}",
            ),
            unit="s",
        ),
    ]
    workers = [
        lines(
            "Workers and queue",
            "Workers of a Python plugin by state, and reviews that wait for one. 0 for other plugins.",
            target(or_zero(f"sum by (state) ({A}python_workers{{{one}}})", "state"), "{{state}}"),
            target(or_zero(f"sum({A}python_queue_length{{{one}}})"), "waiting reviews"),
            unit="short",
            width=6,
        ),
        lines(
            "Worker restarts",
            "Workers that ended or were replaced, by reason.",
            target(
                or_zero(
                    f"sum by (reason) (increase({A}python_worker_restarts_total{{{one}}}[$__rate_interval]))", "reason"
                ),
                "{{reason}}",
            ),
            unit="short",
            width=6,
        ),
        lines(
            "Memory of workers",
            "Memory in RAM of each worker.",
            target(
                or_zero(f"sum by (worker) ({A}python_worker_resident_memory_bytes{{{one}}})", "worker"), "{{worker}}"
            ),
            unit="bytes",
            width=6,
        ),
        lines(
            "Start of workers",
            "From a worker's start until it was ready, of all workers since the sidecar started.",
            *(
                target(
                    or_zero(
                        f"histogram_quantile({of}, sum by (le) ({A}python_worker_start_seconds_bucket{{{one}}})) >= 0"
                    ),
                    name,
                )
                for name, of in QUANTILES.items()
            ),
            unit="s",
            width=6,
        ),
    ]
    choice = variable("plugin", "Plugin", "A plugin of the chain.", f"label_values({A}plugin_info{{{MINE}}}, plugin)")
    return dashboard(
        "dstack-admission-plugin",
        "dstack-admission / plugin",
        "One plugin: what it decides, how it fails, how long it takes.",
        [choice],
        {
            "What it is": what,
            "What it decides": decides,
            "How it fails": faults,
            "How long it takes": latency,
            "Python workers": workers,
        },
    )
