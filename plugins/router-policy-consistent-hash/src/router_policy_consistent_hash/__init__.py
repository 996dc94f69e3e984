"""The same key to the same worker: by hashing with bounded load, or remembered."""

from router_policy_consistent_hash.manual import ManualPolicy
from router_policy_consistent_hash.policy import ConsistentHashPolicy
from router_policy_consistent_hash.prefix_hash import PrefixHashPolicy

__all__ = ["ConsistentHashPolicy", "ManualPolicy", "PrefixHashPolicy"]
