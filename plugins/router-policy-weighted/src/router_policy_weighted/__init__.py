"""The highest weighted sum of scorers, as llm-d has them."""

from router_policy_weighted.policy import WeightedPolicy

__all__ = ["WeightedPolicy"]
