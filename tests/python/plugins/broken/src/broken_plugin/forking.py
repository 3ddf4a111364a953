import os

from dstack.plugins import Plugin

os.fork()


class ForkingPlugin(Plugin):
    pass
