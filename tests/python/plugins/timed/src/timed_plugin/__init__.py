"""Says in a tag when a run was reviewed, and shortens it with the time of day: no two answers are equal."""

import time

from dstack.plugins import ApplyPolicy, Plugin, RunSpec


class TimedPolicy(ApplyPolicy):
    def on_run_apply(self, user: str, project: str, spec: RunSpec) -> RunSpec:
        now = time.time_ns()
        spec.configuration.tags = {**(spec.configuration.tags or {}), "reviewed-at": str(now)}
        # Until midnight.
        spec.configuration.max_duration = f"{86400 - now // 1_000_000_000 % 86400}s"
        return spec


class TimedPlugin(Plugin):
    def get_apply_policies(self) -> list[ApplyPolicy]:
        return [TimedPolicy()]
