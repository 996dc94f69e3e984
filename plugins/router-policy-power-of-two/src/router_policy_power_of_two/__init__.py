"""The less loaded of two workers drawn at random."""

from router_policy_power_of_two.policy import PowerOfTwoPolicy

__all__ = ["PowerOfTwoPolicy"]
