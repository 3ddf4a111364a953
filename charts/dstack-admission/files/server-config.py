"""Writes what the dstack server reads at its start: its config.yml, and the netrc file with its credentials.

Runs in the server's image, by the Python that dstack itself is installed in. The config.yml is the given one
with `rest_plugin` among its plugins, since the server reviews nothing without it and does not say so.
"""

import os
import sys
import tempfile

import yaml

PLUGIN = "rest_plugin"


def main():
    given, written = os.environ["CONFIG_GIVEN"], os.environ["CONFIG_WRITTEN"]
    put(written, yaml.safe_dump(with_plugin(load(given)), sort_keys=False))
    print(f"wrote {written}, with the plugin {PLUGIN}")
    if "NETRC_WRITTEN" in os.environ:
        machine, login = os.environ["NETRC_MACHINE"], os.environ["NETRC_LOGIN"]
        put(os.environ["NETRC_WRITTEN"], netrc(machine, login, password(os.environ["NETRC_PASSWORD_FILE"])))


def load(path):
    if not os.path.exists(path):
        if os.path.isdir(os.path.dirname(path)):
            sys.exit(f"the Secret with the server's configuration has no key {os.path.basename(path)}")
        return {}
    with open(path, encoding="utf-8") as file:
        try:
            config = yaml.safe_load(file)
        except yaml.YAMLError as error:
            # The error's own text may show a secret.
            mark = getattr(error, "problem_mark", None)
            sys.exit("the server's config.yml is no YAML" + (f", line {mark.line + 1}" if mark else ""))
    config = {} if config is None else config
    if not isinstance(config, dict):
        sys.exit("the server's config.yml is not a map")
    return config


def with_plugin(config):
    plugins = config.get("plugins") or []
    if not isinstance(plugins, list):
        sys.exit("`plugins` in the server's config.yml is not a list")
    return {"projects": [], **config, "plugins": plugins if PLUGIN in plugins else [*plugins, PLUGIN]}


def password(path):
    with open(path, encoding="utf-8") as file:
        text = file.read().rstrip("\r\n")
    if not text:
        sys.exit("the password for dstack-admission is empty")
    if "\n" in text or "\r" in text:
        sys.exit("the password for dstack-admission has more than one line")
    return text


def netrc(machine, login, secret):
    return f"machine {machine}\nlogin {quoted(login)}\npassword {quoted(secret)}\n"


def quoted(text):
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def put(path, text):
    """Only ever whole, even where pods share the volume, and for the owner alone."""
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=os.path.dirname(path), delete=False) as file:
        file.write(text)
    os.replace(file.name, path)


main()
