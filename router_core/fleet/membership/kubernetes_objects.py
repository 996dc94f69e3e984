"""From Kubernetes objects, as they come in JSON, to workers. No I/O, no library.

A pod is a worker while it is running and ready, has an address and is not being deleted; an endpoint of an
EndpointSlice while it is ready and not terminating. Anything less and it is none: the router lets it go, and requests
that run on it go on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from router_core.contract.membership import WorkerSpec
from router_core.contract.worker import WorkerRole
from router_core.contract.worker_url import make_worker_url, worker_url

NAMESPACE_LABEL = "k8s.namespace.name"
POD_LABEL = "k8s.pod.name"
POD_UID_LABEL = "k8s.pod.uid"
ZONE_LABEL = "topology.kubernetes.io/zone"

_Object = Mapping[str, Any]  # Any: JSON of the API server, each level is checked when it is read
_NOTHING: _Object = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class WorkerRules:
    """How to make workers of objects.

    Attributes:
        role: The role of all of them.
        port: Number or name of the port; None for the only one there is.
        model_keys: Labels or annotations that hold model ids.
        label_keys: Labels passed on to policies.
        bootstrap_annotation: The annotation that holds a prefill worker's bootstrap port.
        bootstrap_port: A prefill worker's bootstrap port where the annotation is missing.
    """

    role: WorkerRole = WorkerRole.REGULAR
    port: int | str | None = None
    model_keys: tuple[str, ...] = ()
    label_keys: tuple[str, ...] = ()
    bootstrap_annotation: str = "sglang.ai/bootstrap-port"
    bootstrap_port: int | None = None


class UnusableObjectError(Exception):
    """A ready object that cannot be made a worker of; the message says why and what to do."""


def key_of(item: _Object) -> str | None:
    """Return `NAMESPACE/NAME` of an object, None if it has no name."""
    metadata = _mapping(item, "metadata")
    name = metadata.get("name")
    return f"{metadata.get('namespace', '')}/{name}" if isinstance(name, str) and name else None


def workers_of_pod(pod: _Object, rules: WorkerRules) -> tuple[WorkerSpec, ...]:
    """Return the worker that a pod is, or nothing while it is none.

    Raises:
        UnusableObjectError: If it is ready but its port, or bootstrap port, cannot be told.
    """
    metadata, status = _mapping(pod, "metadata"), _mapping(pod, "status")
    address = status.get("podIP")
    is_going = metadata.get("deletionTimestamp") is not None
    if is_going or not isinstance(address, str) or not address or not _is_ready(status):
        return ()
    port = _chosen_port(rules, _container_ports(pod))
    identity = {
        NAMESPACE_LABEL: metadata.get("namespace"),
        POD_LABEL: metadata.get("name"),
        POD_UID_LABEL: metadata.get("uid"),
    }
    return (_worker(address, port, metadata, identity, rules),)


def workers_of_slice(endpoint_slice: _Object, rules: WorkerRules) -> tuple[WorkerSpec, ...]:
    """Return the workers that an EndpointSlice's ready endpoints are.

    Labels and annotations are those of the slice, the API tells no others here.

    Raises:
        UnusableObjectError: If it has ready endpoints but their port, or bootstrap port, cannot be told.
    """
    endpoints = [one for one in _mappings(endpoint_slice, "endpoints") if _is_serving(one)]
    if not endpoints:
        return ()
    metadata = _mapping(endpoint_slice, "metadata")
    port = _chosen_port(rules, _ports(endpoint_slice, "port"))
    workers = []
    for endpoint in endpoints:
        target = _mapping(endpoint, "targetRef")
        identity = {
            NAMESPACE_LABEL: target.get("namespace") or metadata.get("namespace"),
            POD_LABEL: target.get("name"),
            POD_UID_LABEL: target.get("uid"),
        }
        if ZONE_LABEL in rules.label_keys:
            identity[ZONE_LABEL] = endpoint.get("zone")
        # All addresses of an endpoint are the same worker: the API promises no more than that the first one serves.
        workers.append(_worker(endpoint["addresses"][0], port, metadata, identity, rules))
    return tuple(workers)


def merge(found: Iterable[tuple[WorkerSpec, ...]]) -> tuple[WorkerSpec, ...]:
    """Return each worker once, in order.

    A pod of a dual-stack cluster stands in two EndpointSlices, by its IPv4 and its IPv6 address; it counts once, by
    IPv4. Two slices may hold the same endpoint for a moment, too.
    """
    chosen: dict[tuple[str, str], WorkerSpec] = {}
    for specs in found:
        for spec in specs:
            port = spec.url.rpartition(":")[2]
            key = (spec.labels.get(POD_UID_LABEL) or spec.url, port if port.isdigit() else "")
            if key not in chosen or ("[" in chosen[key].url and "[" not in spec.url):
                chosen[key] = spec
    return tuple(chosen.values())


def _worker(
    address: str, port: int, metadata: _Object, identity: Mapping[str, object], rules: WorkerRules
) -> WorkerSpec:
    try:
        url = worker_url(make_worker_url(address, port))
    except ValueError as error:
        raise UnusableObjectError(f"its address {address!r} is none: {error}") from error
    own_labels, annotations = _mapping(metadata, "labels"), _mapping(metadata, "annotations")
    labels = {key: own_labels[key] for key in rules.label_keys if isinstance(own_labels.get(key), str)}
    labels.update((key, value) for key, value in identity.items() if isinstance(value, str))
    return WorkerSpec(
        url=url,
        role=rules.role,
        models=frozenset(_models(own_labels, annotations, rules.model_keys)),
        labels=MappingProxyType(labels),
        bootstrap_port=_bootstrap_port(annotations, rules) if rules.role is WorkerRole.PREFILL else None,
    )


def _models(labels: _Object, annotations: _Object, keys: tuple[str, ...]) -> Iterator[str]:
    """Yield the model ids: an annotation may name several, and may hold a `/`, which a label cannot."""
    for key in keys:
        for text in (labels.get(key), annotations.get(key)):
            if isinstance(text, str):
                yield from (name.strip() for name in text.split(",") if name.strip())


def _bootstrap_port(annotations: _Object, rules: WorkerRules) -> int | None:
    text = annotations.get(rules.bootstrap_annotation)
    if text is None:
        return rules.bootstrap_port
    if isinstance(text, str) and text.isascii() and text.isdigit() and 1 <= int(text) <= 65535:
        return int(text)
    raise UnusableObjectError(f"annotation {rules.bootstrap_annotation} is {text!r}, not a port number; correct it")


def _is_ready(status: _Object) -> bool:
    if status.get("phase") != "Running":
        return False
    return any(one.get("type") == "Ready" and one.get("status") == "True" for one in _mappings(status, "conditions"))


def _is_serving(endpoint: _Object) -> bool:
    conditions = _mapping(endpoint, "conditions")
    is_ready = conditions.get("ready")  # not told means true, says the API
    if is_ready not in (None, True) or conditions.get("terminating") is True:
        return False
    addresses = endpoint.get("addresses")
    return isinstance(addresses, list) and bool(addresses) and isinstance(addresses[0], str) and bool(addresses[0])


def _container_ports(pod: _Object) -> list[tuple[str | None, int]]:
    containers = _mappings(_mapping(pod, "spec"), "containers")
    return [port for container in containers for port in _ports(container, "containerPort")]


def _ports(item: _Object, number_key: str) -> list[tuple[str | None, int]]:
    """Return name and number of the TCP ports."""
    ports = []
    for port in _mappings(item, "ports"):
        number = port.get(number_key)
        if isinstance(number, int) and port.get("protocol", "TCP") == "TCP":
            ports.append((port.get("name") or None, number))
    return ports


def _chosen_port(rules: WorkerRules, ports: list[tuple[str | None, int]]) -> int:
    if isinstance(rules.port, int):
        return rules.port
    numbers = list(dict.fromkeys(number for name, number in ports if rules.port in (None, name)))
    if len(numbers) == 1:
        return numbers[0]
    there = ", ".join(f"{name} {number}" if name else str(number) for name, number in ports) or "none"
    wanted = "the only port" if rules.port is None else f"port {rules.port!r}"
    raise UnusableObjectError(f"{wanted} cannot be told (it has {there}); set the option port to the worker's port")


def _mapping(item: _Object, key: str) -> _Object:
    value = item.get(key)
    return value if isinstance(value, dict) else _NOTHING


def _mappings(item: _Object, key: str) -> list[_Object]:
    value = item.get(key)
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
