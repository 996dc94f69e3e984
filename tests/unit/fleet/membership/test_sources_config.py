from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from router_core.contract.worker import WorkerRole
from router_core.fleet.membership.entries import worker_entries
from router_core.fleet.membership.kubernetes import KubernetesMembership
from router_core.fleet.membership.static import StaticMembership


def kubernetes(**options: Any) -> KubernetesMembership.Config:
    return KubernetesMembership.Config.model_validate(options)


def test_a_worker_is_a_url_or_a_mapping():
    plain, full = worker_entries.validate_python(
        ["http://a:1/", {"url": "http://b:1", "role": "prefill", "models": ["m"], "bootstrap_port": 8998}]
    )
    assert plain.to_spec().url == "http://a:1"
    spec = full.to_spec()
    assert (spec.role, spec.models, spec.bootstrap_port) == (WorkerRole.PREFILL, {"m"}, 8998)


@pytest.mark.parametrize(
    ("workers", "sentence"),
    [
        ("http://a:1", "it is not a list"),
        ({"workers": []}, "it is not a list"),
        (["http://a:1", "http://A:1/"], "http://a:1 stands there more than once"),
        ([{"url": "http://a:1", "rôle": "x"}], "Extra inputs are not permitted"),
        ([{"url": "http://a:1", "bootstrap_port": 1}], "only a prefill worker has a bootstrap_port"),
        ([{"url": "http://a:1", "role": "prefill", "bootstrap_port": True}], "valid integer"),
        ([3], "should be a valid dictionary"),
        (["http://a/v1"], "has more than host and port"),
    ],
)
def test_a_wrong_list_of_workers_is_refused(workers: object, sentence: str):
    with pytest.raises(ValidationError, match=sentence):
        StaticMembership.Config.model_validate({"workers": workers})


def test_selectors_are_mappings_or_text():
    assert kubernetes(selector={"app": "vllm", "tier": "gold"}).selector == "app=vllm,tier=gold"
    assert kubernetes(selector=" app in (a, b) ").selector == "app in (a, b)"


def test_a_port_is_a_number_or_a_name():
    assert kubernetes(selector="a=b", port="8000").port == 8000
    assert kubernetes(selector="a=b", port=8000).port == 8000
    assert kubernetes(selector="a=b", port="http").port == "http"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "no selector is set"),
        ({"selector": ""}, "empty selector"),
        ({"selector": {}}, "empty selector"),
        ({"selector": {"app": 1}}, "the value of app is not text"),
        ({"selector": "a=b", "port": 0}, "greater than or equal to 1"),
        ({"selector": "a=b", "port": "70000"}, "less than or equal to 65535"),
        ({"selector": "a=b", "port": True}, "valid integer"),
        ({"selector": "a=b", "mode": "services"}, "'pods' or 'endpointslices'"),
        ({"selector": "a=b", "namespace": ""}, "at least 1 character"),
    ],
)
def test_wrong_kubernetes_options_are_refused(options: dict[str, object], sentence: str):
    with pytest.raises(ValidationError, match=sentence):
        kubernetes(**options)
