from __future__ import annotations

import contextlib
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_core.contract.errors import StartupError
from router_core.contract.worker import WorkerRole
from router_core.fleet.membership.kubernetes import KubernetesMembership
from router_core.fleet.membership.kubernetes_objects import (
    UnusableObjectError,
    WorkerRules,
    key_of,
    merge,
    workers_of_pod,
    workers_of_slice,
)

RULES = WorkerRules(port=8000)


def pod(**changes: Any) -> dict[str, Any]:
    made: dict[str, Any] = {
        "metadata": {"name": "a", "namespace": "n", "uid": "u"},
        "spec": {"containers": [{"ports": [{"containerPort": 8000}]}]},
        "status": {"phase": "Running", "podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]},
    }
    for place, value in changes.items():
        section, _, key = place.partition("__")
        made[section] = {**made[section], key: value}
    return made


def test_a_ready_pod_is_a_worker():
    (spec,) = workers_of_pod(pod(), WorkerRules())
    assert spec.url == "http://10.0.0.1:8000"
    assert dict(spec.labels) == {"k8s.namespace.name": "n", "k8s.pod.name": "a", "k8s.pod.uid": "u"}


@pytest.mark.parametrize(
    "changes",
    [
        {"status__podIP": None},
        {"status__podIP": ""},
        {"status__phase": "Succeeded"},
        {"status__conditions": None},
        {"status__conditions": [{"type": "Ready", "status": "Unknown"}]},
        {"status__conditions": [{"type": "ContainersReady", "status": "True"}]},
        {"metadata__deletionTimestamp": "2026-01-01T00:00:00Z"},
    ],
)
def test_anything_less_is_none(changes: dict[str, Any]):
    assert workers_of_pod(pod(**changes), RULES) == ()


def test_an_ipv6_address_is_bracketed_and_port_80_not_written():
    (spec,) = workers_of_pod(pod(status__podIP="FD00::1"), WorkerRules(port=80))
    assert spec.url == "http://[fd00::1]"


@pytest.mark.parametrize(
    ("ports", "port", "found"),
    [
        ([{"containerPort": 1}], None, 1),
        ([{"containerPort": 1}, {"containerPort": 2, "protocol": "UDP"}], None, 1),
        ([{"containerPort": 1, "name": "a"}, {"containerPort": 1, "name": "b"}], None, 1),
        ([{"containerPort": 1, "name": "a"}, {"containerPort": 2, "name": "b"}], "b", 2),
        ([{"containerPort": 1}], 7, 7),
        ([], 7, 7),
        ([], None, None),
        ([{"containerPort": 1}, {"containerPort": 2}], None, None),
        ([{"containerPort": 1, "name": "a"}], "b", None),
        ([{"containerPort": "x"}], None, None),
    ],
)
def test_the_port(ports: list[dict[str, Any]], port: int | str | None, found: int | None):
    item = pod(spec__containers=[{"ports": ports}])
    if found is None:
        with pytest.raises(UnusableObjectError, match="set the option port"):
            workers_of_pod(item, WorkerRules(port=port))
    else:
        (spec,) = workers_of_pod(item, WorkerRules(port=port))
        assert spec.url == f"http://10.0.0.1:{found}"


@pytest.mark.parametrize("text", ["", "0", "65536", "8998.0", "port", "-1", " 1", "²", None])
def test_a_bootstrap_port_that_is_none_is_refused_for_prefill_only(text: str | None):
    item = pod(metadata__annotations={"sglang.ai/bootstrap-port": text})
    assert workers_of_pod(item, RULES)[0].bootstrap_port is None
    rules = WorkerRules(role=WorkerRole.PREFILL, port=8000, bootstrap_port=5)
    if text is None:
        assert workers_of_pod(item, rules)[0].bootstrap_port == 5
    else:
        with pytest.raises(UnusableObjectError, match="not a port number"):
            workers_of_pod(item, rules)


def test_two_engines_in_one_pod_are_two_workers():
    target = {"kind": "Pod", "name": "a", "uid": "u"}
    slices = [
        {"endpoints": [{"addresses": [address], "targetRef": target}], "ports": [{"port": port}]}
        for address, port in (("fd00::1", 1), ("10.0.0.1", 1), ("10.0.0.1", 2), ("fd00::1", 2))
    ]
    merged = merge(workers_of_slice(one, WorkerRules()) for one in slices)
    assert [spec.url for spec in merged] == ["http://10.0.0.1:1", "http://10.0.0.1:2"]


_KEYS = [
    "metadata",
    "status",
    "spec",
    "name",
    "uid",
    "podIP",
    "phase",
    "conditions",
    "containers",
    "ports",
    "endpoints",
    "addresses",
    "targetRef",
    "labels",
    "annotations",
    "port",
    "containerPort",
    "type",
]
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_KEYS), inner, max_size=4),
    max_leaves=15,
)


@pytest.mark.parametrize("address", [":", "a b", "x]", "@", "a/b"])
def test_an_address_that_is_none_is_refused(address: str):
    with pytest.raises(UnusableObjectError, match="address"):
        workers_of_pod(pod(status__podIP=address), RULES)
    with pytest.raises(UnusableObjectError, match="address"):
        workers_of_slice({"endpoints": [{"addresses": [address]}]}, RULES)


@given(st.dictionaries(st.sampled_from(["metadata", "status", "spec", "endpoints", "ports"]), _JSON))
def test_whatever_an_object_holds_nothing_breaks(item: dict[str, Any]):
    rules = WorkerRules(model_keys=("name",), label_keys=("uid", "topology.kubernetes.io/zone"))
    key_of(item)
    for translate in (workers_of_pod, workers_of_slice):
        with contextlib.suppress(UnusableObjectError):
            merge([translate(item, rules), translate({**pod(), **item}, rules)])


async def test_a_missing_client_library_is_a_startup_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "kubernetes_asyncio", None)
    source = KubernetesMembership(KubernetesMembership.Config.model_validate({"selector": "app=vllm"}))
    with pytest.raises(StartupError, match=r"pip install 'router-core\[kubernetes\]'"):
        await source.run(lambda specs: None)
