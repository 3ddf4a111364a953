"""The policy that is measured: ten simple rules, as CEL for the product (`fastapi_server.py` has them in Python).

All of them allow `body.json`, so that every rule of a chain is run to its end.
"""

import json
from pathlib import Path

RULES = {
    "no-privileged": "spec.configuration.privileged != true && spec.configuration.docker != true",
    "gpu-limit": "spec.configuration.resources.gpu.count.max != null && spec.configuration.resources.gpu.count.max <= 8",
    "gpu-names": "spec.configuration.resources.gpu.name.all(name, name in ['A100', 'H100', 'L40S'])",
    "max-price": "spec.configuration.max_price != null && spec.configuration.max_price <= 4.0",
    "max-duration": "spec.configuration.max_duration != null && spec.configuration.max_duration <= 86400",
    "images": "spec.configuration.image != null && spec.configuration.image.startsWith('registry.example.com/')",
    "regions": "spec.configuration.regions != null && spec.configuration.regions.all(region, region in ['eu-west-1', 'eu-central-1'])",
    "no-host-mounts": "!spec.configuration.volumes.exists(volume, has(volume.instance_path))",
    "team-tag": "spec.configuration.tags != null && 'team' in spec.configuration.tags",
    "no-plain-secrets": "!spec.configuration.env.exists(name, name.endsWith('_TOKEN') || name.endsWith('_SECRET'))",
}


def one_plugin_a_rule(count):
    """A chain of `count` plugins with one rule each; the ten rules recur."""
    rules = list(RULES.items())
    return [_plugin(f"{name}-{i}", [(name, rule)]) for i, (name, rule) in ((i, rules[i % 10]) for i in range(count))]


def one_plugin_ten_rules():
    """A chain of one plugin with all ten rules."""
    return [_plugin("house-rules", RULES.items())]


def _plugin(name, rules):
    return {"name": name, "cel": {"validations": [{"expression": rule, "message": f"breaks {name}"} for name, rule in rules]}}


def slow_plugins(phase, urls):
    """Remote plugins side by side: as a `fanOut` group of the mutating phase, or as members of the validating one."""
    members = [{"name": f"slow-{i}", "rest": {"url": url}} for i, url in enumerate(urls)]
    if phase == "fanOut":
        return [{"fanOut": members}]
    return [{**member, "phase": "validating"} for member in members]


def audit_file(path: Path, mode):
    """An audit file beside the configuration, written in one of the modes."""
    return {"level": "Patch", "sinks": [{"file": {"path": str(path.parent / "audit.log"), "mode": mode}}]}


def write_config(path: Path, listen, admin, certs: Path, plugins, audit=None):
    """Writes the product's configuration (JSON is YAML): the plugins, metrics, and an audit file.

    `audit` is the mode of the file, `none` for no audit at all.
    """
    config = {
        "apiVersion": "dstack-admission/v1",
        "kind": "AdmissionConfiguration",
        "listen": listen,
        "admin": admin,
        "stateDir": str(path.parent / "state"),
        "tls": {"certFile": str(certs / "server.pem"), "keyFile": str(certs / "server.key")},
        "audit": {"level": "None"} if audit == "none" else audit_file(path, audit or "blocking"),
        "plugins": plugins,
    }
    path.write_text(json.dumps(config, indent=2))
