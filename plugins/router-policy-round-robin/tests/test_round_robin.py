from router_core.testing.conformance import PolicyConformance
from router_policy_round_robin import RoundRobinPolicy


class TestConformance(PolicyConformance):
    policy_class = RoundRobinPolicy
