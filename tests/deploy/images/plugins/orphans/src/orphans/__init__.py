"""A plugin whose every review leaves an orphan: a program that outlives the shell that started it."""

import subprocess

from dstack.plugins import ApplyPolicy, Plugin


class Orphans(ApplyPolicy):
    def on_run_apply(self, user, project, spec):
        subprocess.run(["sh", "-c", "sleep 3 &"], check=True)
        return spec


class OrphansPlugin(Plugin):
    def get_apply_policies(self):
        return [Orphans()]
