"""Prints the plugins that a dstack server in this Python would find, in its order. The standard library alone."""

import importlib.metadata
import json
import sys

# `-c` puts the working directory there, in which the server does not look.
sys.path = [path for path in sys.path if path]


def version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def is_local(distribution):
    """Whether it was installed from a file or a folder, so that no index may have it."""
    return distribution is not None and distribution.read_text("direct_url.json") is not None


every = importlib.metadata.entry_points
# A dict, as in the server: a name keeps its first place, and its last entry point counts.
found = {}
for entry_point in every(group="dstack.plugins") if sys.version_info >= (3, 10) else every().get("dstack.plugins", ()):
    distribution = getattr(entry_point, "dist", None)
    found[entry_point.name] = {
        "name": entry_point.name,
        "package": distribution.metadata["Name"] if distribution else None,
        "version": distribution.version if distribution else None,
        "local": is_local(distribution),
    }
print(json.dumps({
    "python": sys.version.split()[0],
    "dstack": version("dstack"),
    "found": list(found.values()),
}))
