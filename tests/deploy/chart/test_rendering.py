"""What the chart renders is what a Kubernetes API server takes, for every set of values and every version."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path
from typing import Any

import helm_python
import pytest
import yaml

from conftest import ALERT, DASHBOARD, VALUES, documented_values, values_of
from manifests import problems
from rendering import CHART, KUBERNETES, OPERATORS, REPOSITORY, Chart, Refused

MODES = {"sidecar": {}, "standalone": values_of("standalone")}


def of_kind(documents: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [document for document in documents if document["kind"] == kind]


def the(documents: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    (document,) = of_kind(documents, kind)
    return document


def pod_of(documents: list[dict[str, Any]]) -> dict[str, Any]:
    return the(documents, "Deployment")["spec"]["template"]["spec"]


def containers_of(pod: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in [*pod.get("initContainers", []), *pod["containers"]]}


def environment_of(container: dict[str, Any]) -> dict[str, Any]:
    return {variable["name"]: variable.get("value", variable.get("valueFrom")) for variable in container["env"]}


@pytest.mark.parametrize("kubernetes", KUBERNETES)
@pytest.mark.parametrize("name", VALUES)
def test_every_version_takes_what_is_rendered(chart: Chart, name: str, kubernetes: str) -> None:
    documents = chart.render(values_of(name), kubernetes=kubernetes, apis=OPERATORS)
    assert len(documents) >= 4
    assert problems(documents, kubernetes) == []


@pytest.mark.parametrize("name", VALUES)
def test_lint_has_nothing_to_say(name: str) -> None:
    report = helm_python.lint(CHART, values_of(name))
    # 1 is for information: a chart needs no icon.
    assert [one for one in report["messages"] if one["severity"] > 1] == []


def test_the_first_version_is_that_of_native_sidecars() -> None:
    """Helm refuses to install on others."""
    metadata = helm_python.Chart.load(CHART).metadata
    assert metadata["kubeVersion"] == f">={KUBERNETES[0]}.0-0"


@pytest.mark.parametrize(
    "release",
    ["d", "dstack-admission", "a" * 53, "my-dstack-admission", "team.dstack", "a" * 46 + "-.b"],
)
@pytest.mark.parametrize("name", ["sidecar-full", "ha"])
def test_names_stay_within_bounds(chart: Chart, name: str, release: str) -> None:
    documents = chart.render(values_of(name), name=release, namespace="n" * 63, apis=OPERATORS)
    assert problems(documents, "1.37") == []


@pytest.mark.parametrize("tag", ["_0.22", "a" * 62 + "-b", "0.22."])
def test_every_tag_of_an_image_makes_a_label(chart: Chart, tag: str) -> None:
    assert problems(chart.render({"server": {"image": {"tag": tag}}}), "1.37") == []


@pytest.mark.parametrize("alias", ["gate", "Gate_Keeper"])
def test_another_chart_can_be_around_this_one(tmp_path: Path, alias: str) -> None:
    dependency = {"name": CHART.name, "version": "0.1.0", "alias": alias, "condition": f"{alias}.enabled"}
    parent = {"apiVersion": "v2", "name": "platform", "version": "1.0.0", "dependencies": [dependency]}
    shutil.copytree(CHART, tmp_path / "charts" / CHART.name)
    (tmp_path / "Chart.yaml").write_text(yaml.safe_dump(parent))
    values = {"global": {"imageRegistry": "registry.example.com"}, alias: {"enabled": True, "podLabels": None}}
    (tmp_path / "values.yaml").write_text(yaml.safe_dump(values))
    platform = Chart(tmp_path)
    assert problems(platform.render({}), "1.37") == []
    with pytest.raises(Refused, match="'replica'"):
        platform.render({alias: {"replica": 2}})
    # The last one, since Helm takes the chart out of the other.
    assert platform.render({alias: {"enabled": False}}) == []


def test_two_releases_share_no_name(chart: Chart) -> None:
    one, other = (
        {(document["kind"], document["metadata"]["name"]) for document in chart.render({}, name=name)}
        for name in ("one", "other")
    )
    assert not one & other


def test_the_package_holds_what_a_user_needs_and_no_more(tmp_path: Path) -> None:
    path = helm_python.Chart.load(CHART).save(tmp_path)
    with tarfile.open(path) as archive:
        names = {name.removeprefix("dstack-admission/") for name in archive.getnames()}
    assert {"Chart.yaml", "README.md", "values.yaml", "values.schema.json", "values-ha.yaml"} <= names
    assert "files/server-config.py" in names
    assert not [name for name in names if name.startswith(("ci/", "golden")) or ".in." in name]


@pytest.mark.parametrize("page", [CHART / "README.md", REPOSITORY / "docs/kubernetes.md"], ids=lambda page: page.name)
def test_the_values_that_pages_show_can_be_used(chart: Chart, page: Path) -> None:
    shown = documented_values(page)
    assert shown
    for values in shown:
        assert problems(chart.render(values), "1.37") == []


# The pod of the server


def test_the_server_starts_behind_a_native_sidecar(chart: Chart) -> None:
    pod = pod_of(chart.render({}))
    sidecar = pod["initContainers"][-1]
    assert sidecar["name"] == "dstack-admission"
    assert sidecar["restartPolicy"] == "Always"
    assert sidecar["startupProbe"]["httpGet"]["path"] == "/readyz"
    assert [one["name"] for one in pod["containers"]] == ["dstack-server"]


def test_the_server_is_told_where_the_sidecar_is_and_whom_to_believe(chart: Chart) -> None:
    containers = containers_of(pod_of(chart.render({"config": {"pathPrefix": "/admission/"}})))
    server, sidecar = containers["dstack-server"], containers["dstack-admission"]
    environment = environment_of(server)
    assert environment["DSTACK_PLUGIN_SERVICE_URI"] == "https://localhost:8443/admission"
    state = next(mount["mountPath"] for mount in sidecar["volumeMounts"] if mount["name"] == "state")
    assert environment["REQUESTS_CA_BUNDLE"] == f"{state}/trust"
    assert environment["AWS_CA_BUNDLE"] == f"{state}/trust.pem"
    assert {"name": "state", "mountPath": state, "readOnly": True} in server["volumeMounts"]


def test_loopback_is_never_reached_through_a_proxy(chart: Chart) -> None:
    proxy = {"httpsProxy": "http://proxy:3128", "noProxy": [".svc"]}
    environment = environment_of(containers_of(pod_of(chart.render({"server": {"proxy": proxy}})))["dstack-server"])
    assert environment["HTTPS_PROXY"] == "http://proxy:3128"
    assert environment["NO_PROXY"] == environment["no_proxy"] == "localhost,127.0.0.1,::1,.svc"


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
def test_a_proxy_with_a_password_comes_from_a_secret_and_leaves_loopback_alone(chart: Chart, name: str) -> None:
    secret = {"secretKeyRef": {"name": "proxy", "key": "url"}}
    values = {"server": {"extraEnv": [{"name": name, "valueFrom": secret}], "proxy": {"noProxy": [".svc"]}}}
    environment = environment_of(containers_of(pod_of(chart.render(values)))["dstack-server"])
    assert environment[name] == secret
    assert environment["NO_PROXY"] == environment["no_proxy"] == "localhost,127.0.0.1,::1,.svc"


def test_credentials_come_from_secrets_and_never_stand_in_a_manifest(chart: Chart) -> None:
    documents = chart.render(values_of("sidecar-full"), apis=OPERATORS)
    assert of_kind(documents, "Secret") == []
    pod = pod_of(documents)
    environment = environment_of(containers_of(pod)["dstack-server"])
    assert environment["DSTACK_SERVER_ADMIN_TOKEN"] == {"secretKeyRef": {"name": "dstack-admin", "key": "token"}}
    assert environment["DSTACK_DATABASE_URL"] == {"secretKeyRef": {"name": "dstack-postgres", "key": "uri"}}
    assert environment["NETRC"] == "/run/dstack-admission/netrc"
    assert "@" not in environment["DSTACK_PLUGIN_SERVICE_URI"]
    netrc = next(volume for volume in pod["volumes"] if volume["name"] == "netrc")
    assert netrc["emptyDir"] == {"medium": "Memory"}


@pytest.mark.parametrize(
    ("values", "strategy"),
    [
        ({}, "Recreate"),
        ({"persistence": {"enabled": False}}, "Recreate"),
        ({"database": {"existingSecret": "postgres"}}, "Recreate"),
        ({"database": {"existingSecret": "postgres"}, "persistence": {"enabled": False}}, "RollingUpdate"),
        (
            {"database": {"existingSecret": "postgres"}, "persistence": {"accessModes": ["ReadWriteMany"]}},
            "RollingUpdate",
        ),
    ],
)
def test_a_database_in_a_file_has_one_user_at_a_time(chart: Chart, values: dict[str, Any], strategy: str) -> None:
    deployment = the(chart.render({"server": values}), "Deployment")
    assert deployment["spec"]["strategy"]["type"] == strategy


def test_policies_change_without_a_restart_and_the_servers_configuration_with_one(chart: Chart) -> None:
    def rendered(values: dict[str, Any]) -> dict[str, Any]:
        return the(chart.render(values), "Deployment")["spec"]["template"]

    base = {"server": {"config": {"projects": [{"name": "main"}]}}}
    policies = {**base, "config": {"plugins": [{"name": "cost", "use": "max-price", "with": {"limit": 1}}]}}
    projects = {"server": {"config": {"projects": [{"name": "other"}]}}}
    assert rendered(policies) == rendered(base)
    assert rendered(projects) != rendered(base)


@pytest.mark.parametrize("name", VALUES)
def test_the_configuration_is_a_whole_directory(chart: Chart, name: str) -> None:
    """A mount of a single file, by subPath, would never change."""
    for container in containers_of(pod_of(chart.render(values_of(name), apis=OPERATORS))).values():
        assert not [mount for mount in container.get("volumeMounts", []) if "subPath" in mount]


@pytest.mark.parametrize("keep", [True, False])
def test_the_claim_says_whether_it_is_left_behind(chart: Chart, keep: bool) -> None:
    claim = the(chart.render({"server": {"persistence": {"keep": keep}}}), "PersistentVolumeClaim")
    assert (claim["metadata"].get("annotations", {}).get("helm.sh/resource-policy") == "keep") is keep


# Both pods


@pytest.mark.parametrize("name", VALUES)
def test_the_sidecar_may_do_nothing_but_its_work(chart: Chart, name: str) -> None:
    documents = chart.render(values_of(name), apis=OPERATORS)
    pods = [pod_of(documents), *(document["spec"] for document in of_kind(documents, "Pod"))]
    for pod in pods:
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        for container in containers_of(pod).values():
            if container["image"].split("/")[-1].startswith("dstack-admission"):
                assert container["securityContext"] == {
                    "runAsNonRoot": True,
                    "runAsUser": 65532,
                    "runAsGroup": 65532,
                    "readOnlyRootFilesystem": True,
                    "allowPrivilegeEscalation": False,
                    "capabilities": {"drop": ["ALL"]},
                    "seccompProfile": {"type": "RuntimeDefault"},
                }


@pytest.mark.parametrize("name", VALUES)
def test_pods_fit_the_standard_restricted_but_for_the_servers_root(chart: Chart, name: str) -> None:
    documents = chart.render(values_of(name), apis=OPERATORS)
    # What values add is theirs.
    given = {one["name"] for key in ("extraContainers", "extraInitContainers") for one in values_of(name).get(key, [])}
    for pod in [pod_of(documents), *(document["spec"] for document in of_kind(documents, "Pod"))]:
        for container in (one for one in containers_of(pod).values() if one["name"] not in given):
            context = {**pod.get("securityContext", {}), **container["securityContext"]}
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert context["seccompProfile"] == {"type": "RuntimeDefault"}
            assert context.get("runAsNonRoot", False) or container["name"] in ("dstack-server", "server-config")
            assert container["resources"]["limits"]["memory"]
        assert not any("hostPath" in volume for volume in pod["volumes"])


def test_notes_show_the_canary_only_where_it_is(chart: Chart) -> None:
    for canary in (True, False):
        notes = chart.texts({"canary": {"enabled": canary}})["dstack-admission/templates/NOTES.txt"]
        assert ("To see a denial:" in notes) is canary
        assert "To see what is decided:\n\n  kubectl -n dstack logs deployment/" in notes


@pytest.mark.parametrize("mode", MODES)
def test_without_metrics_nothing_listens_for_them(chart: Chart, mode: str) -> None:
    documents = chart.render({**MODES[mode], "metrics": {"enabled": False}})
    container = containers_of(pod_of(documents))["dstack-admission"]
    assert configuration_of(documents)["admin"] == "127.0.0.1:9443"
    assert "admin" not in [port["name"] for port in container.get("ports", [])]
    command = container["livenessProbe"]["exec"]["command"]
    # The port that the pod was started with, whatever the ConfigMap says by now.
    assert command == ["/usr/bin/dstack-admission", "healthcheck", "--admin", "127.0.0.1:9443", "--live"]
    assert container["readinessProbe"]["exec"]["command"] == command[:-1]
    assert not [service for service in of_kind(documents, "Service") if service["metadata"]["name"].endswith("metrics")]


def configuration_of(documents: list[dict[str, Any]]) -> dict[str, Any]:
    (text,) = [
        document["data"]["configuration.yaml"]
        for document in of_kind(documents, "ConfigMap")
        if "configuration.yaml" in document.get("data", {})
    ]
    return yaml.safe_load(text)


@pytest.mark.parametrize("selector", [None, {"matchLabels": {"app": "all"}}])
def test_a_spread_counts_the_pods_that_it_names_or_its_own(chart: Chart, selector: dict[str, Any] | None) -> None:
    constraint: dict[str, Any] = {"topologyKey": "zone", "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"}
    given = {**constraint, "labelSelector": selector} if selector else constraint
    documents = chart.render({"topologySpreadConstraints": [given]})
    own = the(documents, "Deployment")["spec"]["selector"]
    assert pod_of(documents)["topologySpreadConstraints"] == [{**constraint, "labelSelector": selector or own}]


# The pods beside no server


def test_a_rolling_update_loses_no_review(chart: Chart) -> None:
    deployment = the(chart.render(values_of("standalone")), "Deployment")["spec"]
    assert deployment["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    container = containers_of(deployment["template"]["spec"])["dstack-admission"]
    pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pause >= 5
    # 25 s is what reviews in hand are given.
    assert deployment["template"]["spec"]["terminationGracePeriodSeconds"] > pause + 25


def test_kubernetes_without_a_pause_gets_none_and_says_so(chart: Chart) -> None:
    values = values_of("standalone")
    old, new = (chart.texts(values, kubernetes=version) for version in ("1.29", "1.30"))
    assert "preStop" not in "".join(text for path, text in old.items() if path.endswith(".yaml"))
    assert "WARNING: Kubernetes before 1.30" in old["dstack-admission/templates/NOTES.txt"]
    assert "WARNING" not in new["dstack-admission/templates/NOTES.txt"]


def test_the_autoscaler_owns_the_number_of_pods(chart: Chart) -> None:
    documents = chart.render(values_of("ha"), apis=OPERATORS)
    assert "replicas" not in the(documents, "Deployment")["spec"]
    assert the(documents, "HorizontalPodAutoscaler")["spec"]["minReplicas"] == 3


def test_the_certificate_holds_for_the_address_the_server_is_told(chart: Chart) -> None:
    documents = chart.render(values_of("ha"), apis=OPERATORS)
    notes = chart.texts(values_of("ha"), apis=OPERATORS)["dstack-admission/templates/NOTES.txt"]
    leaf = next(one for one in of_kind(documents, "Certificate") if not one["spec"].get("isCA"))
    uri = next(word for word in notes.split() if word.startswith("DSTACK_PLUGIN_SERVICE_URI="))
    host = uri.removeprefix("DSTACK_PLUGIN_SERVICE_URI=https://").split(":")[0]
    assert host in leaf["spec"]["dnsNames"]
    mounted = next(volume for volume in pod_of(documents)["volumes"] if volume["name"] == "tls")
    assert mounted["secret"]["secretName"] == leaf["spec"]["secretName"]


# What watches it


@pytest.mark.parametrize("kind", ["serviceMonitor", "podMonitor"])
def test_the_job_has_the_name_that_alerts_go_by(chart: Chart, kind: str) -> None:
    values = {"nameOverride": "admission", "metrics": {kind: {"enabled": True}}}
    documents = chart.render(values, apis=OPERATORS)
    monitor = the(documents, kind[0].upper() + kind[1:])
    label = monitor["spec"]["jobLabel"]
    scraped = [*of_kind(documents, "Service"), the(documents, "Deployment")["spec"]["template"]]
    chosen = monitor["spec"]["selector"]["matchLabels"].items()
    jobs = [one["metadata"]["labels"][label] for one in scraped if chosen <= one["metadata"]["labels"].items()]
    assert jobs and set(jobs) == {"dstack-admission"}


def test_alerts_are_those_of_the_file(steady_chart: Chart) -> None:
    rule = the(
        steady_chart.render({"metrics": {"prometheusRule": {"enabled": True}}}, apis=OPERATORS), "PrometheusRule"
    )
    assert rule["spec"]["groups"] == [{"name": "dstack-admission", "rules": [ALERT]}]


def test_runbooks_can_be_elsewhere_and_alerts_left_out(steady_chart: Chart) -> None:
    def groups(**settings: Any) -> list[dict[str, Any]]:
        values = {"metrics": {"prometheusRule": {"enabled": True, **settings}}}
        return the(steady_chart.render(values, apis=OPERATORS), "PrometheusRule")["spec"]["groups"]

    (group,) = groups(runbookPrefix="https://example.com/runbooks")
    link = group["rules"][0]["annotations"]["runbook_url"]
    assert link == "https://example.com/runbooks#dstackadmissiondown"
    assert groups(disabled=["DstackAdmissionDown"]) == []


def test_a_dashboard_comes_through_as_it_is(steady_chart: Chart) -> None:
    documents = steady_chart.render({"metrics": {"dashboards": {"enabled": True}}})
    (dashboard,) = [one for one in documents if one["metadata"]["labels"].get("grafana_dashboard") == "1"]
    assert dashboard["data"] == {"overview.json": DASHBOARD}


@pytest.mark.parametrize("key", ["prometheusRule", "dashboards"])
def test_a_chart_without_its_files_says_so(bare_chart: Chart, key: str) -> None:
    with pytest.raises(Refused, match=f"metrics.{key}.enabled: this copy of the chart has no"):
        bare_chart.render({"metrics": {key: {"enabled": True}}}, apis=OPERATORS)


# helm test


def test_helm_test_asks_the_server_for_the_canary(chart: Chart) -> None:
    values = {**values_of("sidecar"), "canary": {"runName": "tweety"}, "tests": {"project": "research"}}
    documents = chart.render(values)
    pod = the(documents, "Pod")
    arguments = pod["spec"]["containers"][0]["args"]
    service = next(one for one in of_kind(documents, "Service") if one["spec"]["ports"][0]["name"] == "http")
    server = f"http://{service['metadata']['name']}.dstack.svc:3000"
    assert arguments[0] == "doctor"
    assert dict(zip(arguments[1::2], arguments[2::2], strict=True)) == {
        "--canary": "tweety",
        "--server": server,
        "--token-file": "/run/dstack/token",
        "--project": "research",
    }
    assert configuration_of(documents)["plugins"][-1] == {"name": "canary", "use": "canary", "with": {"name": "tweety"}}
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"


def test_helm_test_calls_a_service_as_the_server_would(chart: Chart) -> None:
    documents = chart.render(values_of("standalone"))
    environment = environment_of(the(documents, "Pod")["spec"]["containers"][0])
    assert environment["DSTACK_PLUGIN_SERVICE_URI"] == "https://dstack-dstack-admission.dstack.svc:8443"
    assert environment["NETRC"] == "/run/dstack/netrc"


def test_notes_tell_when_helm_test_cannot_run(chart: Chart) -> None:
    assert of_kind(chart.render({}), "Pod") == []
    notes = chart.texts({})["dstack-admission/templates/NOTES.txt"]
    assert "`helm test` does nothing without server.adminToken.existingSecret" in notes
