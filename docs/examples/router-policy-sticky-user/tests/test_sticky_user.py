from router_policy_sticky_user import StickyUserPolicy

from router_core.testing.conformance import PolicyConformance


class TestConformance(PolicyConformance):
    policy_class = StickyUserPolicy
    affinity = "user"


def test_a_user_leaves_a_busy_home(policy_harness, make_request):
    harness = policy_harness(StickyUserPolicy(StickyUserPolicy.Config(margin=1)), workers=3)
    home = harness.select(make_request(user="ada")).worker
    assert harness.select(make_request(user="ada")).worker is home
    assert harness.select(make_request(user="ada")).worker is not home
