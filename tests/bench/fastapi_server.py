"""The comparison: a dstack REST plugin server as people write it, with FastAPI and dstack's own request models.

It carries the ten rules of `policy.py` in Python and runs in one process, under uvicorn with uvloop and httptools. It
logs what dstack's example of such a server logs: one line for a review, and uvicorn's access log. It is spared what the
product does besides: it has no metrics and no audit.
"""

import logging
import sys

import uvicorn
from dstack.plugins.builtin.rest_plugin import RunSpecRequest, RunSpecResponse
from fastapi import FastAPI

logger = logging.getLogger(__name__)
app = FastAPI()


def broken_rules(spec):
    """The messages of the rules that the spec breaks."""
    configuration = spec.configuration
    gpu = configuration.resources.gpu
    rules = {
        "no-privileged": not configuration.privileged and not configuration.docker,
        "gpu-limit": gpu.count.max is not None and gpu.count.max <= 8,
        "gpu-names": all(name in ("A100", "H100", "L40S") for name in gpu.name),
        "max-price": configuration.max_price is not None and configuration.max_price <= 4.0,
        "max-duration": isinstance(configuration.max_duration, int) and configuration.max_duration <= 86400,
        "images": configuration.image is not None and configuration.image.startswith("registry.example.com/"),
        "regions": configuration.regions is not None
        and all(region in ("eu-west-1", "eu-central-1") for region in configuration.regions),
        "no-host-mounts": not any(hasattr(volume, "instance_path") for volume in configuration.volumes),
        "team-tag": configuration.tags is not None and "team" in configuration.tags,
        "no-plain-secrets": not any(name.endswith(("_TOKEN", "_SECRET")) for name in configuration.env),
    }
    return [f"breaks {name}" for name, kept in rules.items() if not kept]


@app.post("/apply_policies/on_run_apply")
async def on_run_apply(request: RunSpecRequest) -> RunSpecResponse:
    logger.info("run of user %s in project %s", request.user, request.project)
    return RunSpecResponse(spec=request.spec, error="\n".join(broken_rules(request.spec)) or None)


if __name__ == "__main__":
    port, certificate, key = sys.argv[1:]
    logging.basicConfig(level=logging.INFO)
    uvicorn.run(app, host="127.0.0.1", port=int(port), ssl_certfile=certificate, ssl_keyfile=key)
