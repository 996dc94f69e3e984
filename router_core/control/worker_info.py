"""What the admin API tells of a registered worker."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from router_core.contract.worker import Circuit
from router_core.control.worker_form import COST_LABEL, DEFAULT_COST, DEFAULT_PRIORITY, FIELD_LABELS, PRIORITY_LABEL
from router_core.fleet.membership.roster import BOOTSTRAP_PORT_LABEL
from router_core.fleet.registry import Registration, WorkerStatus

Info = dict[str, Any]  # Any: JSON

_CIRCUITS = (Circuit.CLOSED, Circuit.HALF_OPEN, Circuit.PROBING, Circuit.OPEN)  # the worse, the later
_JOBS = {
    WorkerStatus.REGISTERING: ("AddWorker", "It gets requests once its health check passes."),
    WorkerStatus.DRAINING: ("RemoveWorker", "It gets no new requests and leaves once those it has are done."),
}


def worker_info(registration: Registration) -> Info:
    """Return a worker as JSON; of an engine with data-parallel ranks, all together."""
    workers, status = registration.workers, registration.status
    worker = workers[0]
    models, labels = sorted(worker.models), worker.labels
    info: Info = {
        "id": registration.id,
        "url": registration.url,
        "model_id": models[0] if models else "unknown",
        "models": [{"id": model} for model in models],
        "adapters": [{"id": name, "parent": model} for name, model in sorted(worker.adapters.items())],
        "priority": int(_number(labels, PRIORITY_LABEL, DEFAULT_PRIORITY)),
        "cost": _number(labels, COST_LABEL, DEFAULT_COST),
        "worker_type": worker.role.value,
        "status": status.value,
        "is_healthy": any(each.is_healthy for each in workers),
        "is_draining": registration.is_draining,
        "circuit": max((each.circuit for each in workers), key=_CIRCUITS.index),
        "load": sum(each.load for each in workers),
        "connection_mode": "HTTP",
        "labels": {name: value for name, value in labels.items() if name not in FIELD_LABELS},
        "metadata": {"dp_size": str(len(workers))},
        "disable_health_check": False,
    }
    if BOOTSTRAP_PORT_LABEL in labels:
        info["bootstrap_port"] = int(_number(labels, BOOTSTRAP_PORT_LABEL, 0)) or None
    if registration.kind is not None:
        info["runtime_type"] = registration.kind
    if status in _JOBS:
        kind, message = _JOBS[status]
        info["job_status"] = {
            "job_type": kind,
            "worker_url": registration.url,
            "status": "processing",
            "message": message,
            "timestamp": int(registration.draining_since or registration.registered_at),
        }
    return info


def _number(labels: Mapping[str, str], name: str, default: float) -> float:
    """Return a label as a number; labels are free text, so it may be none."""
    try:
        number = float(labels[name])
    except (KeyError, ValueError):
        return default
    return number if math.isfinite(number) else default
