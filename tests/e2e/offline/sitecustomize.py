"""Makes a dstack server start and plan alike on every machine, with or without a network.

Python imports this file at start when its directory is on `PYTHONPATH`. Only what lies outside the
machine is replaced: names that are not this machine's do not resolve, RunPod accepts any API key,
AWS credentials are not tried, the GPU catalogue is read from the files named by `GPUHUNT_CATALOG_DIR`,
and every image has the same configuration. The server's way of calling its plugins is never touched.
"""

import importlib.abc
import importlib.util
import socket
import sys

_LOOPBACK = {None, "", "localhost", "0.0.0.0", "::", "::1"}
_resolve = socket.getaddrinfo


def _is_loopback(host):
    if isinstance(host, bytes):
        host = host.decode("ascii", "replace")
    return host in _LOOPBACK or host.startswith("127.")


def _resolve_loopback(host, *arguments, **keywords):
    if _is_loopback(host):
        return _resolve(host, *arguments, **keywords)
    raise socket.gaierror(socket.EAI_NONAME, f"{host} does not resolve in this test")


socket.getaddrinfo = _resolve_loopback


def _answer_for_runpod(adapters):
    """RunPod's API accepts every key and offers nothing (gpuhunt asks it at import up to dstack 0.19)."""
    from requests.models import Response

    send = adapters.HTTPAdapter.send

    def send_or_answer(self, request, *arguments, **keywords):
        if ".runpod.io/" not in request.url:
            return send(self, request, *arguments, **keywords)
        response = Response()
        response.status_code = 200
        response.url = request.url
        response.request = request
        response._content = b'{"data": {"gpuTypes": [], "myself": {"id": "offline"}}}'
        return response

    adapters.HTTPAdapter.send = send_or_answer


def _keep_local_catalogue(catalog):
    catalog.Catalog.load = catalog.Catalog._load = lambda self, version=None: None


def _accept_aws_credentials(configurator):
    configurator.AWSConfigurator.validate_config = lambda self, config, default_creds_enabled: None


def _describe_every_image(docker):
    described = {"User": "root", "Entrypoint": None, "Cmd": ["sh"]}

    def config():
        return docker.ImageConfigObject(config=docker.ImageConfig(**described))

    if hasattr(docker, "get_image_config"):
        docker.get_image_config = lambda image_name, registry_auth: config()
    else:

        def config_and_architectures(image_name, registry_auth):
            import gpuhunt

            described_object = docker.ImageConfigObject(
                architecture="amd64", os="linux", config=docker.ImageConfig(**described)
            )
            return described_object, {gpuhunt.CPUArchitecture.X86}

        docker.get_image_config_and_cpu_architectures = config_and_architectures


_AFTER_IMPORT = {
    "requests.adapters": _answer_for_runpod,
    "gpuhunt._internal.catalog": _keep_local_catalogue,
    "dstack._internal.core.backends.aws.configurator": _accept_aws_credentials,
    "dstack._internal.server.services.docker": _describe_every_image,
}


class _ChangeAfterImport(importlib.abc.MetaPathFinder):
    """Finds the modules above as Python would, and changes them once they have been executed."""

    def find_spec(self, name, path=None, target=None):
        change = _AFTER_IMPORT.pop(name, None)
        if change is None:
            return None
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def execute_and_change(module):
            execute(module)
            change(module)

        spec.loader.exec_module = execute_and_change
        return spec


sys.meta_path.insert(0, _ChangeAfterImport())
