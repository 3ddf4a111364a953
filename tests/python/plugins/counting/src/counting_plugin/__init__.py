"""Counts the runs of each project in a file and denies what is beyond a limit, on all four kinds of specs.

The file and the limit come from the environment, as many plugins do it: `COUNTING_FILE`, `COUNTING_LIMIT`.
"""

import fcntl
import json
import os
from pathlib import Path

from dstack.plugins import ApplyPolicy, FleetSpec, GatewaySpec, Plugin, RunSpec, VolumeSpec, get_plugin_logger

logger = get_plugin_logger(__name__)


def count(project: str) -> int:
    """One more for the project, in one process or in several."""
    with Path(os.environ["COUNTING_FILE"]).open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        counts = json.loads(file.read() or "{}")
        counts[project] = counts.get(project, 0) + 1
        file.truncate(0)
        json.dump(counts, file)
    return counts[project]


class CountingPolicy(ApplyPolicy):
    def on_run_apply(self, user: str, project: str, spec: RunSpec) -> RunSpec:
        number = count(project)
        logger.info("run %d of %s", number, project)
        if number > int(os.environ["COUNTING_LIMIT"]):
            raise ValueError(f"{project} has had its {os.environ['COUNTING_LIMIT']} runs\nask {user}'s team lead")
        spec.configuration.tags = {**(spec.configuration.tags or {}), "number": str(number)}
        return spec

    def on_fleet_apply(self, user: str, project: str, spec: FleetSpec) -> FleetSpec:
        spec.configuration.idle_duration = "10m"
        return spec

    def on_volume_apply(self, user: str, project: str, spec: VolumeSpec) -> VolumeSpec:
        # Some backends have volumes without a size since 0.22.
        size = getattr(spec.configuration, "size", None)
        if size is not None and size > 1000:
            raise ValueError(f"{size} is too large")
        return spec

    def on_gateway_apply(self, user: str, project: str, spec: GatewaySpec) -> GatewaySpec:
        spec.configuration.public_ip = False
        return spec


class CountingPlugin(Plugin):
    def get_apply_policies(self) -> list[ApplyPolicy]:
        return [CountingPolicy()]
