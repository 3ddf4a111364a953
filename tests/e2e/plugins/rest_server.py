"""A REST plugin server as dstack documents it: FastAPI with dstack's own request models.

It runs in the environment of a dstack version and understands the specs of that version.

    python rest_server.py --port 8000 [--cert server.pem --key server.key]

The policy is the path before `/apply_policies`, and where there is none `allow`:

    allow            answers the spec as its models dump it, which is not quite the spec that came
    tag.KEY.VALUE    sets the tag KEY
    price.LIMIT      denies a run whose price is unlimited or above LIMIT dollars an hour
    fault.NAME       misbehaves: status-500, garbled, empty-error, no-spec, slow
"""

import argparse
import time
from typing import Any

import uvicorn
from dstack.plugins.builtin.rest_plugin import (
    FleetSpecRequest,
    FleetSpecResponse,
    GatewaySpecRequest,
    GatewaySpecResponse,
    RunSpecRequest,
    RunSpecResponse,
    VolumeSpecRequest,
    VolumeSpecResponse,
)
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse

SLOW_SECONDS = 9
app = FastAPI()


def price_denial(spec: Any, limit: float) -> str | None:
    price = spec.merged_profile.max_price if spec.merged_profile else None
    if price is None:
        return f"set max_price: at most ${limit:g} an hour is allowed"
    return f"max_price ${price:g} is over ${limit:g} an hour" if price > limit else None


def decide(request: Request, body: Any, response: Any) -> Any:
    """Answers one review by the policy of its path, in the form that dstack's documentation shows."""
    policy = request.path_params.get("policy", "allow")
    name, _, rest = policy.partition(".")
    spec = body.spec
    error: str | None = None
    if name == "fault":
        return misbehave(rest)
    if name == "tag":
        key, _, value = rest.partition(".")
        spec.configuration.tags = {**(spec.configuration.tags or {}), key: value}
    elif name == "price":
        error = price_denial(spec, float(rest))
    elif name != "allow":
        return PlainTextResponse(f"no policy {policy}", status_code=404)
    return response(spec=spec, error=error)


def misbehave(fault: str) -> Response:
    """Answers as a broken plugin server does."""
    match fault:
        case "status-500":
            return PlainTextResponse("out of order", status_code=500)
        case "garbled":
            return PlainTextResponse('{"spec": {', media_type="application/json")
        case "empty-error":
            return JSONResponse({"spec": {}, "error": ""})
        case "no-spec":
            return JSONResponse({"spec": None, "error": None})
        case "slow":
            time.sleep(SLOW_SECONDS)
            return JSONResponse({"spec": None, "error": None})
    return PlainTextResponse(f"no fault {fault}", status_code=404)


# `def`, not `async def`: FastAPI runs these in threads, as dstack's documented example does.
@app.post("/apply_policies/on_run_apply", response_model=RunSpecResponse)
@app.post("/{policy}/apply_policies/on_run_apply", response_model=RunSpecResponse)
def on_run_apply(body: RunSpecRequest, request: Request) -> Any:
    return decide(request, body, RunSpecResponse)


@app.post("/apply_policies/on_fleet_apply", response_model=FleetSpecResponse)
@app.post("/{policy}/apply_policies/on_fleet_apply", response_model=FleetSpecResponse)
def on_fleet_apply(body: FleetSpecRequest, request: Request) -> Any:
    return decide(request, body, FleetSpecResponse)


@app.post("/apply_policies/on_volume_apply", response_model=VolumeSpecResponse)
@app.post("/{policy}/apply_policies/on_volume_apply", response_model=VolumeSpecResponse)
def on_volume_apply(body: VolumeSpecRequest, request: Request) -> Any:
    return decide(request, body, VolumeSpecResponse)


@app.post("/apply_policies/on_gateway_apply", response_model=GatewaySpecResponse)
@app.post("/{policy}/apply_policies/on_gateway_apply", response_model=GatewaySpecResponse)
def on_gateway_apply(body: GatewaySpecRequest, request: Request) -> Any:
    return decide(request, body, GatewaySpecResponse)


@app.get("/healthcheck")
def healthcheck() -> dict[str, str]:
    return {"status": "running"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--cert", help="PEM chain; without it the server speaks plain HTTP")
    parser.add_argument("--key", help="PEM key of the certificate")
    arguments = parser.parse_args()
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=arguments.port,
        ssl_certfile=arguments.cert,
        ssl_keyfile=arguments.key,
        access_log=False,
        log_level="warning",
    )


if __name__ == "__main__":
    main()
