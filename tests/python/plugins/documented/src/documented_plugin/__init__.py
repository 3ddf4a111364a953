"""What dstack's page on plugins shows, rule by rule: a price, a duration in words, a tag, a denial, and a setting
that services alone have."""

from dstack.api import Service
from dstack.plugins import ApplyPolicy, Plugin, RunSpec, get_plugin_logger

logger = get_plugin_logger(__name__)


class DocumentedPolicy(ApplyPolicy):
    def on_run_apply(self, user: str, project: str, spec: RunSpec) -> RunSpec:
        configuration = spec.configuration
        configuration.max_price = 2.0
        configuration.max_duration = "1d"
        if configuration.tags is None:
            configuration.tags = {}
        configuration.tags |= {"team": "my_team"}
        if configuration.privileged:
            logger.warning("User %s tries to run privileged containers", user)
            raise ValueError("Running privileged containers is forbidden")
        if isinstance(configuration, Service):
            configuration.https = True
        return spec


class DocumentedPlugin(Plugin):
    def get_apply_policies(self) -> list[ApplyPolicy]:
        return [DocumentedPolicy()]
