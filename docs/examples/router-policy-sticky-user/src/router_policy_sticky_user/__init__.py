"""A routing policy for router-core."""

from router_policy_sticky_user.policy import StickyUserPolicy

__all__ = ["StickyUserPolicy"]
