"""Uncached prefill times requests in flight."""

from router_policy_lmetric.policy import LmetricPolicy

__all__ = ["LmetricPolicy"]
