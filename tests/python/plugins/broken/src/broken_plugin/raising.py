import logging

logging.getLogger("early").warning("about to fail")
raise KeyError("LICENSE")
