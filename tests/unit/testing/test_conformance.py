import unittest

import pytest

from router_core.api import hookimpl, least_loaded
from router_core.testing.conformance import PAIR_POOL, REGULAR_POOL, PolicyConformance, check_spreads_when_idle


class Sound:
    @hookimpl
    def select_single(self, workers):
        return least_loaded(workers)


class FirstOnly:
    @hookimpl
    def select_single(self, workers):
        return workers[0]


class PairsOnly:
    @hookimpl
    def select_pair(self, prefill_workers, decode_workers):
        return least_loaded(prefill_workers), least_loaded(decode_workers)


class TestSound(PolicyConformance):
    policy_class = Sound


class TestPairsOnly(PolicyConformance):
    policy_class = PairsOnly


def test_failure_names_the_check_and_the_pool():
    class First(PolicyConformance):
        policy_class = FirstOnly

    with pytest.raises(AssertionError) as caught:
        First().test_spreads_when_idle()

    assert "check_spreads_when_idle of FirstOnly" in caught.value.__notes__[0]
    assert "regular workers" in caught.value.__notes__[0]


def test_exempted_check_is_skipped_with_its_reason():
    class First(PolicyConformance):
        policy_class = FirstOnly
        exempt = {"check_spreads_when_idle": "fills one worker first by design"}

    with pytest.raises(unittest.SkipTest, match="by design"):
        First().run_check(check_spreads_when_idle)


def test_exemption_needs_a_reason():
    with pytest.raises(TypeError, match="say why"):

        class First(PolicyConformance):
            policy_class = FirstOnly
            exempt = {"check_spreads_when_idle": " "}


@pytest.mark.parametrize("name", ["check_picks_only_candidates", "check_memory_stays_bounded", "check_nonsense"])
def test_what_every_policy_owes_cannot_be_exempted(name):
    with pytest.raises(TypeError, match="no check that may be exempted"):
        type("First", (PolicyConformance,), {"policy_class": FirstOnly, "exempt": {name: "we would rather not"}})


@pytest.mark.parametrize("replacement", [None, lambda self: None])
def test_standard_test_cannot_be_overridden(replacement):
    with pytest.raises(TypeError, match="test_survives_churn may not be overridden"):
        type("First", (PolicyConformance,), {"policy_class": FirstOnly, "test_survives_churn": replacement})


def test_mixin_cannot_override_a_standard_test():
    class Mixin:
        def test_survives_churn(self):
            pass

    with pytest.raises(TypeError, match="may not be overridden"):
        type("First", (Mixin, PolicyConformance), {"policy_class": FirstOnly})


def test_unknown_affinity_is_refused():
    with pytest.raises(TypeError, match="write 'session', 'user', 'prompt' or None"):
        type("First", (PolicyConformance,), {"policy_class": FirstOnly, "affinity": "moon"})


def test_policy_class_must_be_set():
    class Nothing(PolicyConformance):
        pass

    with pytest.raises(TypeError, match="set policy_class"):
        Nothing().test_survives_churn()


def test_roles_follow_from_the_select_hooks():
    assert [subject.roles for subject in TestSound().subjects()] == [REGULAR_POOL, PAIR_POOL]
    assert [subject.roles for subject in TestPairsOnly().subjects()] == [PAIR_POOL]


def test_every_check_has_a_test_of_its_name():
    from router_core.testing import conformance

    checks = {name.removeprefix("check_") for name in conformance.__all__ if name.startswith("check_")}
    tests = {name.removeprefix("test_") for name in dir(PolicyConformance) if name.startswith("test_")}

    assert tests == checks
    assert {name.removeprefix("check_") for name in conformance.EXEMPTIBLE} <= checks
