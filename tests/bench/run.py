#!/usr/bin/env python3
"""Measures the product side by side with its limit and with a FastAPI plugin server, and prints the ratios.

Needs Linux, two cores, cargo, openssl and taskset, and nothing from PyPI but what it installs into an environment of its own.
README.md says what each figure means. Exits 1 when a figure is missing, never because one is over its bound.
"""

import argparse
import operator
import os
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median

import callgrind
import policy
import servers
from slow import slow_server

MODES = ("new", "keepalive")
NAMES = {"new": "new TLS connections", "keepalive": "keep-alive"}
LABELS = {"bare": "bare", "ours": "ours", "one": "one plugin of ten rules", "fastapi": "FastAPI"}
SLOW_SECONDS = 0.2
AUDIT_BOUNDS = {"batch": 0.95, "blocking": None, "blocking-strict": 0.7}  # throughput, of that without audit


@dataclass
class Scale:
    """How much is measured."""

    rounds: int
    reviews: dict  # reviews of one run, by mode
    fastapi_reviews: int
    dstack_calls: int
    memory: tuple  # resident memory is read after so many reviews

    def __str__(self):
        return f"{self.rounds} rounds; a run is {self.reviews['new']} reviews new, {self.reviews['keepalive']} keep-alive"


FULL = Scale(7, {"new": 3000, "keepalive": 20_000}, 600, 300, (20_000, 100_000))
QUICK = Scale(2, {"new": 300, "keepalive": 2000}, 60, 20, (500, 2000))


@dataclass
class Figure:
    """One line of the table: what was measured in each round, and what its median may be."""

    name: str
    values: list
    bound: float | None = None
    within: callable = operator.le
    unit: str = ""

    def __str__(self):
        middle, low, high = median(self.values), min(self.values), max(self.values)
        line = f"{self.name:<66} {middle:8.2f}{self.unit:<3} {f'{low:.2f}..{high:.2f}':>16}"
        if self.bound is None:
            return line
        sign = "<=" if self.within is operator.le else ">="
        return f"{line}   {sign} {self.bound:g}{self.unit}  {'ok' if self.within(middle, self.bound) else 'OVER'}"


class Bench:
    """The figures, each group with servers of its own."""

    def __init__(self, scale, stand_in):
        self.scale = scale
        self.stand_in = stand_in

    def ours(self, name, plugins):
        """The product, or in a calibration a second bare server in its place."""
        return servers.bare() if self.stand_in else servers.product(name, plugins)

    def cost_and_latency(self):
        """CPU time and p99 beside the limit's, and CPU time beside FastAPI's."""
        with ExitStack() as running:
            bare = running.enter_context(servers.bare())
            ours = running.enter_context(self.ours("ten-plugins", policy.one_plugin_a_rule(10)))
            one = running.enter_context(self.ours("one-plugin", policy.one_plugin_ten_rules()))
            fastapi = running.enter_context(servers.fastapi())
            for mode, ours_bound, fastapi_bound in (("new", 1.15, 5), ("keepalive", 1.7, 7)):
                reviews = self.scale.reviews[mode]
                cost = self.alternate(
                    mode,
                    connections=8,
                    bare=(bare, reviews),
                    ours=(ours, reviews),
                    one=(one, reviews),
                    fastapi=(fastapi, self.scale.fastapi_reviews),
                )
                crowd = self.alternate(mode, connections=64, bare=(bare, reviews), ours=(ours, reviews))
                for name in cost:
                    yield Figure(
                        f"CPU ms per 1,000 reviews, {LABELS[name]}, {NAMES[mode]}", [run["cpu"] * 1000 for run in cost[name]]
                    )
                for name in crowd:
                    yield Figure(
                        f"p99 ms at 64 connections, {LABELS[name]}, {NAMES[mode]}", [run["p99Ms"] for run in crowd[name]]
                    )
                yield Figure(f"CPU, ours / bare, {NAMES[mode]}", ratios(cost, "ours", "bare", "cpu"), ours_bound)
                yield Figure(
                    f"CPU, one plugin of ten rules / bare, {NAMES[mode]}", ratios(cost, "one", "bare", "cpu"), ours_bound
                )
                yield Figure(f"p99 at 64 connections, ours / bare, {NAMES[mode]}", ratios(crowd, "ours", "bare", "p99Ms"), 1.5)
                yield Figure(
                    f"CPU, FastAPI / ours, {NAMES[mode]}", ratios(cost, "fastapi", "ours", "cpu"), fastapi_bound, operator.ge
                )

    def audit(self):
        """Throughput with an audit file in each mode beside the same without audit."""
        plugins = policy.one_plugin_a_rule(10)
        with ExitStack() as running:
            modes = {
                mode: running.enter_context(servers.product(f"audit-{mode}", plugins, audit=mode)) for mode in AUDIT_BOUNDS
            }
            none = running.enter_context(servers.product("audit-none", plugins, audit="none"))
            for mode in MODES:
                reviews = self.scale.reviews[mode]
                runs = self.alternate(mode, 64, none=(none, reviews), **{name: (modes[name], reviews) for name in modes})
                for name in runs:
                    yield Figure(
                        f"reviews per second at 64 connections, audit {name}, {NAMES[mode]}",
                        [run["perSecond"] for run in runs[name]],
                    )
                for name, bound in AUDIT_BOUNDS.items():
                    yield Figure(
                        f"throughput, audit {name} / none, {NAMES[mode]}",
                        ratios(runs, name, "none", "perSecond"),
                        bound,
                        operator.ge,
                    )

    def rule_counts(self):
        """Whether the second twenty rules cost what the first twenty did."""
        with ExitStack() as running:
            chains = {
                count: running.enter_context(servers.product(f"{count}-rules", policy.one_plugin_a_rule(count)))
                for count in (0, 10, 20, 40)
            }
            reviews = self.scale.reviews["keepalive"]
            cost = self.alternate("keepalive", 8, **{str(count): (server, reviews) for count, server in chains.items()})
        for count in cost:
            yield Figure(f"CPU ms per 1,000 reviews, {count} rules, keep-alive", [run["cpu"] * 1000 for run in cost[count]])
        none, twenty, forty = (median(run["cpu"] for run in cost[count]) for count in ("0", "20", "40"))
        yield Figure(
            "linear: cost of rules 21 to 40 / cost of rules 1 to 20", [(forty - twenty) / max(twenty - none, 1e-9)], 1.25
        )

    def slow_members(self):
        """Whether members called at once take the time of the slowest."""
        with slow_server(SLOW_SECONDS) as first, slow_server(SLOW_SECONDS) as second:
            for phase in ("fanOut", "validating"):
                with servers.product(phase, policy.slow_plugins(phase, [first, second])) as ours:
                    waits = [ours.load("keepalive", 5, 1)["p50Ms"] / 1000 for _ in range(self.scale.rounds)]
                yield Figure(f"{phase} of two 200 ms plugins, time / 200 ms", [wait / SLOW_SECONDS for wait in waits], 1.25)

    def memory(self):
        """Resident memory under load, and whether it stays flat."""
        early, late = self.scale.memory
        with self.ours("memory", policy.one_plugin_a_rule(10)) as ours:
            start = ours.resident()
            ours.load("new", early, 64)
            middle = ours.resident()
            ours.load("new", late - early, 64)
            end = ours.resident()
        yield Figure("resident memory at start", [start], unit="MB")
        yield Figure(f"resident memory after {late} reviews at 64 connections", [end], 20, unit="MB")
        yield Figure(f"its growth between {early} and {late} reviews", [end - middle], 1, unit="MB")

    def dstack_wait(self):
        """What dstack's own client waits for one call."""
        with servers.bare() as bare, self.ours("dstack", policy.one_plugin_a_rule(10)) as ours:
            waits = [servers.dstack_waits(self.scale.dstack_calls, [bare, ours]) for _ in range(self.scale.rounds)]
        pairs = [(median(bare), median(ours)) for bare, ours in waits]
        yield Figure("dstack's client waits for bare", [bare for bare, _ in pairs], unit="ms")
        yield Figure("dstack's client waits for ours", [ours for _, ours in pairs], unit="ms")
        yield Figure("dstack's client waits, ours / bare", [ours / bare for bare, ours in pairs], 1.10)

    def instructions(self):
        """Instructions of one review, which no neighbour on the machine disturbs."""
        for mode in MODES:
            bare = callgrind.instructions(servers.bare, mode)
            ours = callgrind.instructions(lambda **how: servers.product("callgrind", policy.one_plugin_a_rule(10), **how), mode)
            yield Figure(f"1,000 instructions per review, bare, {NAMES[mode]}", [bare / 1000])
            yield Figure(f"1,000 instructions per review, ours, {NAMES[mode]}", [ours / 1000])
            yield Figure(f"instructions, ours / bare, {NAMES[mode]}", [ours / bare])

    def alternate(self, mode, connections, **servers):
        """Loads each server in turn, round after round, after one round that is not counted."""
        reports = {name: [] for name in servers}
        for round in range(self.scale.rounds + 1):
            for name, (server, reviews) in servers.items():
                report = server.load(mode, reviews, connections)
                if round > 0:
                    reports[name].append(report)
        return reports


def ratios(reports, over, under, key):
    """The ratio within each round, so that what slows a whole round down cancels out."""
    return [a[key] / max(b[key], 1e-9) for a, b in zip(reports[over], reports[under], strict=True)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small run that shows that all figures come out")
    parser.add_argument("--calibrate", action="store_true", help="a second bare server in our place: how far from 1 is noise")
    parser.add_argument("--callgrind", action="store_true", help="count instructions instead (needs valgrind)")
    parser.add_argument("--only", nargs="+", metavar="GROUP", help="cost_and_latency audit rule_counts slow_members memory dstack_wait")
    arguments = parser.parse_args()
    scale = QUICK if arguments.quick else FULL
    bench = Bench(scale, arguments.calibrate)
    groups = [bench.cost_and_latency, bench.memory, bench.dstack_wait]
    if not arguments.calibrate:
        groups += [bench.audit, bench.rule_counts, bench.slow_members]
    if arguments.callgrind:
        groups = [bench.instructions]
    groups = [group for group in groups if not arguments.only or group.__name__ in arguments.only]

    servers.prepare()
    print(f"{scale}; server on core {servers.SERVER_CORE}, load on core {servers.LOAD_CORE}")
    if (busy := os.getloadavg()[0]) > 0.5:
        print(f"the machine was busy when this began (load {busy:.1f}): latencies hold its neighbours' work too")
    print(f"{'figure':<66} {'median':>11} {'least..most':>16}   bound")
    missing = 0
    for group in groups:
        try:
            for figure in group():
                print(figure, flush=True)
        except (RuntimeError, OSError, ValueError) as problem:
            missing += 1
            print(f"MISSING: {group.__doc__.rstrip('.')}: {problem}", flush=True)
    sys.exit(1 if missing else 0)


if __name__ == "__main__":
    main()
