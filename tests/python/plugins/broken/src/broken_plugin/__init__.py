"""Plugins that the server cannot load."""

from dstack.plugins import Plugin


class NoPlugin:
    pass


class RaisingPlugin(Plugin):
    def __init__(self) -> None:
        raise RuntimeError("no database")
