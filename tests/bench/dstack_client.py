"""What the dstack server waits: dstack's own `rest_plugin` client, called in turn on each server.

Arguments: the request body's file, how many calls, and the servers' URIs. Prints the wait of each call in
milliseconds, one list for each URI, as JSON.
"""

import json
import os
import sys
import time

from dstack.plugins.builtin.rest_plugin import PLUGIN_SERVICE_URI_ENV_VAR_NAME, CustomApplyPolicy, RunSpecRequest


def policy(uri):
    os.environ[PLUGIN_SERVICE_URI_ENV_VAR_NAME] = uri
    return CustomApplyPolicy()


def wait(policy, review):
    started = time.perf_counter()
    policy.on_run_apply(user=review.user, project=review.project, spec=review.spec)
    return (time.perf_counter() - started) * 1000


if __name__ == "__main__":
    body, calls, *uris = sys.argv[1:]
    with open(body) as file:
        review = RunSpecRequest.model_validate_json(file.read())
    policies = {uri: policy(uri) for uri in uris}
    # The first calls pay for imports and caches.
    for _ in range(10):
        for each in policies.values():
            wait(each, review)
    waits = {uri: [] for uri in uris}
    order = list(policies.items())
    for _ in range(int(calls)):
        for uri, each in order:
            waits[uri].append(wait(each, review))
        order.reverse()
    json.dump([waits[uri] for uri in uris], sys.stdout)
