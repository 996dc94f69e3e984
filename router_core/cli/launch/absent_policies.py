"""Policies of the other routers that no package here has, and what to take instead."""

from __future__ import annotations

from collections.abc import Mapping

from router_core.plugin_host.discovery import installed_policies

_INSTEAD: Mapping[str, str] = {
    "bucket": "predicted_latency and lpwl weigh how long prompts are",
    "kv_aware": "predicted_latency and dynamo_cost know what each worker has cached from what was sent there",
    "rendezvous_hash": "consistent_hash keeps sessions and users together",
    "sticky_least_loaded": "manual with --assignment-mode min_load gives a session the least loaded worker for good",
}


def why_absent(policy: str) -> str | None:
    """Return what to say of another router's policy that is not here; None of any other, and if somebody offers it."""
    instead = _INSTEAD.get(policy)
    if instead is None or any(plugin.name == policy for plugin in installed_policies().plugins):
        return None
    return f"the policy {policy} of other routers is not there: {instead}; name one of those"
