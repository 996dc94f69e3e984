"""Pods and EndpointSlices as an API server describes them, shortened to what matters."""

from __future__ import annotations

from typing import Any


def pod(
    name: str,
    ip: str | None = "10.0.0.1",
    *,
    namespace: str = "default",
    labels: dict[str, str] | None = None,
    annotations: dict[str, str] | None = None,
    is_ready: bool = True,
    phase: str = "Running",
    is_going: bool = False,
    uid: str | None = None,
    containers: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": namespace,
        "labels": {"app": "vllm"} if labels is None else labels,
        "annotations": annotations or {},
    }
    if uid is not None:
        metadata["uid"] = uid
    if is_going:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        metadata["deletionGracePeriodSeconds"] = 30
    status: dict[str, Any] = {
        "phase": phase,
        "conditions": [
            {"type": "PodScheduled", "status": "True"},
            {"type": "ContainersReady", "status": "True" if is_ready else "False"},
            {"type": "Ready", "status": "True" if is_ready else "False"},
        ],
    }
    if ip is not None:
        status |= {"podIP": ip, "podIPs": [{"ip": ip}]}
    ports = [{"name": "http", "containerPort": 8000, "protocol": "TCP"}]
    return {
        "metadata": metadata,
        "spec": {"containers": [{"name": "engine", "ports": ports}] if containers is None else containers},
        "status": status,
    }


def endpoint(
    *addresses: str, name: str, is_ready: bool | None = True, is_terminating: bool = False, zone: str | None = None
) -> dict[str, Any]:
    conditions = {"serving": is_ready, "terminating": is_terminating}
    if is_ready is not None:
        conditions["ready"] = is_ready
    target = {"kind": "Pod", "namespace": "default", "name": name, "uid": f"uid-of-{name}"}
    found: dict[str, Any] = {"addresses": list(addresses), "conditions": conditions, "targetRef": target}
    return found if zone is None else {**found, "zone": zone}


def endpoint_slice(
    name: str,
    *endpoints: dict[str, Any],
    service: str = "vllm",
    ports: list[dict[str, Any]] | None = None,
    labels: dict[str, str] | None = None,
    address_type: str = "IPv4",
    annotations: dict[str, str] | None = None,
) -> dict[str, Any]:
    return {
        "metadata": {
            "name": name,
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": service, **(labels or {})},
            "annotations": annotations or {},
        },
        "addressType": address_type,
        "endpoints": list(endpoints),
        "ports": [{"name": "http", "port": 8000, "protocol": "TCP"}] if ports is None else ports,
    }
