"""A plugin that takes its time: a fleet named `slow-3` is reviewed for three seconds."""

import time

from dstack.plugins import ApplyPolicy, Plugin


class Patient(ApplyPolicy):
    def on_fleet_apply(self, user, project, spec):
        name, _, seconds = (spec.configuration.name or "").partition("-")
        if name == "slow":
            time.sleep(int(seconds))
        spec.configuration.tags = {"reviewed-by": "patient"}
        return spec


class PatientPlugin(Plugin):
    def get_apply_policies(self):
        return [Patient()]
