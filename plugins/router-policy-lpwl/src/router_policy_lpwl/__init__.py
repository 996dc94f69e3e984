"""The least pending prefill work, the new prompt counted."""

from router_policy_lpwl.policy import LpwlPolicy

__all__ = ["LpwlPolicy"]
