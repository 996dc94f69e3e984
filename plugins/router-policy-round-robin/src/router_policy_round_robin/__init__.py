"""Workers take turns."""

from router_policy_round_robin.policy import RoundRobinPolicy

__all__ = ["RoundRobinPolicy"]
