import asyncio
import logging
import os
import warnings

from dstack.plugins import Plugin

print("printed at import")
os.system("echo printed by a child at import")
os.write(1, b"written to descriptor 1 at import\n")
warnings.warn("this plugin is old")
logging.getLogger("noisy").info("imported")


class NoisyPlugin(Plugin):
    def __init__(self) -> None:
        # The server loads plugins within its event loop.
        logging.getLogger("noisy").info("made in %s", type(asyncio.get_running_loop()).__name__)
