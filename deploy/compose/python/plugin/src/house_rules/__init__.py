"""A dstack plugin as dstack's page on plugins describes one: it knows nothing of dstack-admission."""

from dstack.plugins import ApplyPolicy, Plugin, RunSpec


class HouseRules(ApplyPolicy):
    def on_run_apply(self, user: str, project: str, spec: RunSpec) -> RunSpec:
        if spec.configuration.privileged:
            raise ValueError("house rules: no privileged containers")
        spec.configuration.tags = {**(spec.configuration.tags or {}), "owner": user}
        return spec


class HouseRulesPlugin(Plugin):
    def get_apply_policies(self) -> list[ApplyPolicy]:
        return [HouseRules()]
