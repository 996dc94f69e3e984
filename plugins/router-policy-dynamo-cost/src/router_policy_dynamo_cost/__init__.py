"""The cost function of the Dynamo KV router."""

from router_policy_dynamo_cost.policy import DynamoCostPolicy

__all__ = ["DynamoCostPolicy"]
