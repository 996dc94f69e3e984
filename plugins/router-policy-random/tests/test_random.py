from router_core.testing.conformance import PolicyConformance
from router_policy_random import RandomPolicy


class TestConformance(PolicyConformance):
    policy_class = RandomPolicy
