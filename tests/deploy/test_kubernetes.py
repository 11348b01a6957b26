"""The manifests of deploy/kubernetes: they fit the schemas, belong together, and what they start answers the probes."""

import copy
import re
from functools import partial
from typing import Any

import httpx
import jsonschema_rs
import kubernetes_validate
import pytest
from ruamel.yaml import YAML

from rabbitry.runtime.service import GRACE
from tests.deploy.files import DEPLOY, ROOT
from tests.support import commands
from tests.support.waiting import eventually_blocking

_VERSIONS = ("1.34", "1.37")


def _read() -> dict[str, dict[str, Any]]:
    """Return all manifests by their kinds."""
    yaml = YAML(typ="safe")
    files = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
    return {one["kind"]: one for file in files for one in yaml.load_all(file.read_text())}


_MANIFESTS = _read()
_KUBERNETES = [kind for kind, one in _MANIFESTS.items() if not one["apiVersion"].startswith("keda.sh/")]
_KEDA = [kind for kind in _MANIFESTS if kind not in _KUBERNETES]
_CONTAINER = _MANIFESTS["Deployment"]["spec"]["template"]["spec"]["containers"][0]
_STRING = {"type": "string"}
_COUNT = {"type": "integer", "minimum": 1}


def _closed(**properties: object) -> dict[str, object]:
    """Return the schema of an object that has exactly these properties."""
    return {
        "type": "object", "properties": properties, "required": list(properties), "additionalProperties": False,
    }  # fmt: skip


_KEDA_SPECS: dict[str, dict[str, object]] = {
    "TriggerAuthentication": _closed(
        secretTargetRef={"type": "array", "items": _closed(parameter={"const": "host"}, name=_STRING, key=_STRING)}
    ),
    "ScaledObject": _closed(
        scaleTargetRef=_closed(name=_STRING),
        minReplicaCount=_COUNT,
        maxReplicaCount=_COUNT,
        pollingInterval=_COUNT,
        advanced=_closed(
            horizontalPodAutoscalerConfig=_closed(
                behavior=_closed(scaleDown=_closed(stabilizationWindowSeconds=_COUNT))
            )
        ),
        triggers={
            "type": "array",
            "minItems": 1,
            "items": _closed(
                type={"const": "rabbitmq"},
                metadata=_closed(
                    protocol={"enum": ["amqp", "http", "auto"]},
                    queueName=_STRING,
                    mode={"enum": ["QueueLength", "MessageRate"]},
                    value={"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?$"},  # all metadata are strings
                ),
                authenticationRef=_closed(name=_STRING),
            ),
        },
    ),
}
"""The fields that are used, as in the resource definitions of KEDA 2 and on the page of its scaler for RabbitMQ."""


@pytest.mark.parametrize("kind", _KUBERNETES)
def test_they_fit_the_schemas_of_kubernetes(kind: str) -> None:
    for version in _VERSIONS:
        kubernetes_validate.validate(_MANIFESTS[kind], version, strict=True)
    wrong = copy.deepcopy(_MANIFESTS[kind])
    wrong["specs"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, _VERSIONS[-1], strict=True)


@pytest.mark.parametrize("kind", _KEDA)
def test_those_for_keda_have_the_fields_that_it_knows(kind: str) -> None:
    schema = _closed(
        apiVersion={"const": "keda.sh/v1alpha1"},
        kind={"const": kind},
        metadata=_closed(name=_STRING),
        spec=_KEDA_SPECS[kind],
    )
    jsonschema_rs.validator_for(schema).validate(_MANIFESTS[kind])


def test_they_belong_together() -> None:
    name = _MANIFESTS["Deployment"]["metadata"]["name"]
    secret = _MANIFESTS["Secret"]
    assert _MANIFESTS["ScaledObject"]["spec"]["scaleTargetRef"] == {"name": name}
    reference = {"name": secret["metadata"]["name"], "key": next(iter(secret["stringData"]))}
    assert _CONTAINER["env"] == [{"name": "RABBITRY_BROKER", "valueFrom": {"secretKeyRef": reference}}]
    authentication = _MANIFESTS["TriggerAuthentication"]
    assert authentication["spec"]["secretTargetRef"] == [{"parameter": "host", **reference}]
    for trigger in _MANIFESTS["ScaledObject"]["spec"]["triggers"]:
        assert trigger["authenticationRef"] == {"name": authentication["metadata"]["name"]}
    labels = _MANIFESTS["Deployment"]["spec"]["template"]["metadata"]["labels"]
    for kind in ("Deployment", "PodDisruptionBudget"):
        assert _MANIFESTS[kind]["spec"]["selector"]["matchLabels"] == labels
    user = _MANIFESTS["Deployment"]["spec"]["template"]["spec"]["securityContext"]
    assert f"USER {user['runAsUser']}:{user['runAsGroup']}" in (DEPLOY / "Dockerfile").read_text()


def test_a_pod_has_more_time_to_end_than_it_takes() -> None:
    deadline = next(int(item.partition("=")[2]) for item in _CONTAINER["args"] if item.startswith("--deadline="))
    grace = _MANIFESTS["Deployment"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace > deadline + 5 * GRACE


def test_the_container_answers_its_probes_and_the_triggers_name_its_queues(
    embedded_url: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("app")
    page = (ROOT / "docs/flow.md").read_text()
    shop = re.search(r"```python\n(# shop\.py\n.*?)```", page, re.DOTALL)
    assert shop is not None
    (folder / "shop.py").write_text(shop[1])
    # 127.0.0.2 and any port: the pod's own are of a network that tests do not have.
    places = {"--health-host=0.0.0.0": "--health-host=127.0.0.2", "--health-port=8080": "--health-port=0"}
    assert set(places) <= set(_CONTAINER["args"])
    assert _CONTAINER["ports"] == [{"name": "health", "containerPort": 8080}]
    words = [places.get(item, item) for item in _CONTAINER["args"]]
    more = {"RABBITRY_BROKER": embedded_url, "PYTHONPATH": str(folder)}
    with commands.service(*words, more=more) as worker:
        url = worker.wait_for(r"health: (http://127\.0\.0\.2:\d+)/health")[1]
        for probe in ("livenessProbe", "readinessProbe"):
            request = _CONTAINER[probe]["httpGet"]
            assert request["port"] == "health"
            eventually_blocking(partial(_answers, url + request["path"]), probe)
        stages = httpx.get(f"{url}/health", timeout=60).json()["stages"]
        triggers = _MANIFESTS["ScaledObject"]["spec"]["triggers"]
        assert {trigger["metadata"]["queueName"] for trigger in triggers} == {f"shop.{stage}" for stage in stages}
        worker.process.terminate()
        assert worker.process.wait(60) == 0, worker.output


def _answers(address: str) -> bool:
    return httpx.get(address, timeout=60).status_code == 200
