"""Every worker has the same chance."""

from router_policy_random.policy import RandomPolicy

__all__ = ["RandomPolicy"]
