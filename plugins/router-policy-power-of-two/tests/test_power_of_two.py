from router_core.testing.conformance import PolicyConformance
from router_policy_power_of_two import PowerOfTwoPolicy


class TestConformance(PolicyConformance):
    policy_class = PowerOfTwoPolicy
