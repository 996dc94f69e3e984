"""The worker with the least in flight."""

from router_policy_least_loaded.policy import LeastLoadedPolicy

__all__ = ["LeastLoadedPolicy"]
