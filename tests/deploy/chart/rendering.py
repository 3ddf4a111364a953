"""Renders the chart as `helm template` would, by Helm's own code, without a cluster."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import helm_python
import yaml
from helm_python import _native

REPOSITORY = Path(__file__).resolve().parents[3]
CHART = REPOSITORY / "charts" / "dstack-admission"

# The versions that the chart is for, of those whose schemas are known.
KUBERNETES = tuple(f"1.{minor}" for minor in range(29, 38))
NEWEST = KUBERNETES[-1]
OPERATORS = ("monitoring.coreos.com/v1", "cert-manager.io/v1")


class Refused(Exception):
    """Helm refused the values; the text is what a person reads."""


class Chart:
    """A chart that is read once and rendered many times, some milliseconds each."""

    def __init__(self, path: Path = CHART) -> None:
        self._chart = helm_python.Chart.load(path)

    def texts(
        self,
        values: dict[str, Any],
        *,
        kubernetes: str = NEWEST,
        apis: tuple[str, ...] = (),
        name: str = "dstack",
        namespace: str = "dstack",
    ) -> dict[str, str]:
        """Every rendered file by its path in the chart, NOTES.txt among them.

        The library's own `render` takes no Kubernetes version; what it calls does.
        """
        options = {
            "name": name,
            "namespace": namespace,
            "kube_version": f"v{kubernetes}.0",
            "api_versions": list(apis),
        }
        try:
            rendered = _native.call_string("helm_render", self._chart._raw(), json.dumps(values), json.dumps(options))
        except helm_python.HelmError as refused:
            raise Refused(str(refused)) from None
        return json.loads(rendered)

    def render(self, values: dict[str, Any], **options: Any) -> list[dict[str, Any]]:
        """Every rendered document, hooks included, in the order of the files."""
        files = self.texts(values, **options)
        return [
            document
            for path, text in sorted(files.items())
            if path.endswith((".yaml", ".yml"))
            for document in yaml.load_all(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
            if document is not None
        ]
