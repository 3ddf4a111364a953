"""One project beside the others."""

from __future__ import annotations

from grafana import A, MINE, Json, bars, colours, dashboard, lines, or_zero, rate, share, stat, steps, target, variable


def project() -> Json:
    metric = f"{A}project_request_total"
    one = f'{MINE}, project="$project"'
    needs = "Needs `metrics: {projects: N}` in the configuration."

    def counted(title: str, decision: str, colour: str) -> Json:
        expr = or_zero(f'sum(increase({metric}{{{one}, decision="{decision}"}}[$__range]))')
        description = f"Reviews of this project that were {decision} in the range shown. {needs}"
        return stat(title, description, expr, unit="short", decimals=0, thresholds=steps((None, colour)), width=6)

    def all_of(decision: str) -> str:
        return f'sum by (project) (increase({metric}{{{MINE}, decision="{decision}"}}[$__range]))'

    zero = f"sum by (project) ({metric}{{{MINE}}}) * 0"
    this = [
        counted("Allowed", "allowed", "green"),
        counted("Patched", "patched", "blue"),
        counted("Denied", "denied", "red"),
        stat(
            "Denied share",
            f"Of all reviews of this project in the range shown, how many were denied. {needs}",
            or_zero(
                f'sum(increase({metric}{{{one}, decision="denied"}}[$__range]))'
                f" / (sum(increase({metric}{{{one}}}[$__range])) > 0)"
            ),
            unit="percentunit",
            decimals=0,
            thresholds=steps((None, "green"), (0.5, "orange"), (0.999, "red")),
            width=6,
        ),
        lines(
            "Decisions",
            f"Reviews of this project, by decision. {needs}",
            target(or_zero(rate(metric, "decision", one), "decision"), "{{decision}}"),
            unit="reqps",
            stacked=True,
            overrides=colours(["allowed", "patched", "denied"]),
            width=12,
        ),
        lines(
            "Denied and patched share",
            f"Of all reviews of this project, how many are denied and how many changed. {needs}",
            target(share("denied", metric, one), "denied"),
            target(share("patched", metric, one), "patched"),
            unit="percentunit",
            overrides=colours(["patched", "denied"]),
            most=1,
            width=12,
        ),
    ]
    beside = [
        bars(
            "Projects that are denied most",
            f"Denied reviews of each project in the range shown. (other) are those beyond the limit. {needs}",
            target(f"topk(10, {all_of('denied')})", "{{project}}", instant=True),
            thresholds=steps((None, "red")),
            width=8,
        ),
        bars(
            "Projects that apply most",
            f"All reviews of each project in the range shown. {needs}",
            target(f"topk(10, sum by (project) (increase({metric}{{{MINE}}}[$__range])))", "{{project}}", instant=True),
            thresholds=steps((None, "blue")),
            width=8,
        ),
        lines(
            "Denied share of each project",
            f"A project at 100 % can apply nothing at all. {needs}",
            target(
                f"{rate(metric, 'project', MINE + ', decision=' + chr(34) + 'denied' + chr(34))}"
                f" / ({rate(metric, 'project')} > 0) or {zero}",
                "{{project}}",
            ),
            unit="percentunit",
            most=1,
            width=8,
        ),
    ]
    choice = variable(
        "project", "Project", f"A project of the dstack server. {needs}", f"label_values({metric}{{{MINE}}}, project)"
    )
    return dashboard(
        "dstack-admission-project",
        "dstack-admission / project",
        f"One project: what becomes of what it applies, beside the others. {needs}",
        [choice],
        {"This project": this, "Beside the others": beside},
    )
