"""Send a prompt where its longest known prefix was sent, while loads are even."""

from router_policy_cache_aware.policy import CacheAwarePolicy

__all__ = ["CacheAwarePolicy"]
