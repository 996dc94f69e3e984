from collections import Counter

import pytest
from pydantic import ValidationError

from router_core.api import Leg, WorkerRole
from router_core.testing.conformance import PAIR_POOL, PolicyConformance, make_request, make_worker, make_workers
from router_policy_consistent_hash import ConsistentHashPolicy, PrefixHashPolicy


class TestConformance(PolicyConformance):
    policy_class = ConsistentHashPolicy
    affinity = "session"


class TestConformanceByPrefix(PolicyConformance):
    policy_class = ConsistentHashPolicy
    options = {"keys": ["prefix"]}
    roles = (WorkerRole.REGULAR,)
    affinity = "prompt"


class TestConformanceOfPrefixHash(PolicyConformance):
    policy_class = PrefixHashPolicy
    roles = PAIR_POOL  # no affinity: a decode leg goes by load alone


def policy(**options):
    return ConsistentHashPolicy(ConsistentHashPolicy.Config(**options))


def home_of(made, workers, **facts):
    return made.select_single(workers, make_request(**facts)).url


# --- the key ---


def test_first_key_a_request_has_counts():
    made, workers = policy(), make_workers(16)
    both = home_of(made, workers, session="s", user="u")

    assert both == home_of(made, workers, session="s", user="other", text="anything")
    assert len({home_of(made, workers, user=f"user {n}", text="same") for n in range(50)}) > 5
    assert len({home_of(made, workers, text=f"{n} is how it begins") for n in range(50)}) > 5


def test_routing_key_header_outranks_the_session():
    made, workers = policy(), make_workers(16)
    homes = {
        home_of(made, workers, session=str(n), headers={"x-smg-routing-key": "k"}) for n in range(20)
    }  # fmt: skip
    assert len(homes) == 1


def test_request_id_and_credentials_are_no_keys():
    made, workers = policy(), make_workers(16)
    assert not {"header:x-request-id", "header:authorization", "header:cookie"} & made.needs
    assert len({home_of(made, workers, session="s", id=f"request {n}") for n in range(20)}) == 1


def test_prefix_is_only_the_beginning():
    made, workers = policy(keys=["prefix"], prefix_tokens=4), make_workers(16)
    assert len({home_of(made, workers, text="sixteen letters!" + "more " * n) for n in range(20)}) == 1
    assert len({home_of(made, workers, text=f"{n} letters, others") for n in range(20)}) > 3


def test_unlike_namespaces_share_no_prefix():
    made, workers = policy(keys=["prefix"]), make_workers(16)
    assert len({home_of(made, workers, text="same", cache_salt=str(n)) for n in range(20)}) > 3


def test_prefix_means_nothing_to_a_decode_leg():
    request = make_request("Hello", leg=Leg.DECODE)
    policy(keys=["prefix"]).select_single(make_workers(4), request)
    assert request.reason == "no_key"


def test_request_without_a_key_goes_to_the_least_loaded():
    request = make_request()
    workers = (make_worker("a", load=2), make_worker("b", load=1))

    assert policy().select_single(workers, request).url == "b"
    assert request.reason == "no_key"


def test_only_what_the_keys_name_is_declared():
    assert policy(keys="session, user").needs == frozenset()
    assert policy(keys=["header:X-Tenant"]).needs == {"header:x-tenant"}
    assert policy(keys=["prefix"]).needs == {"text"}


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ([], "no key is named"),
        ("", "no key is named"),
        (["sessions"], "'sessions' is no key"),
        (["header:"], "'header:' is no key"),
        (["header:a b"], "is no key"),
        (["user", "user"], "more than once"),
    ],
)
def test_keys_that_cannot_be_are_refused(keys, sentence):
    with pytest.raises(ValidationError, match=sentence):
        ConsistentHashPolicy.Config(keys=keys)


# --- the worker ---


def test_keys_are_spread_evenly():
    made, workers = policy(), make_workers(4)
    counts = Counter(home_of(made, workers, session=str(n)) for n in range(4000))
    assert all(count == pytest.approx(1000, abs=150) for count in counts.values())


def test_every_router_gives_a_key_the_same_worker_whatever_the_order():
    workers = make_workers(8)
    assert [home_of(policy(), workers, session=str(n)) for n in range(50)] == [
        home_of(policy(), workers[::-1], session=str(n)) for n in range(50)
    ]


def test_only_the_keys_of_a_departed_worker_move():
    made, workers = policy(), make_workers(8)
    before = {n: home_of(made, workers, session=str(n)) for n in range(400)}
    after = {n: home_of(made, workers[1:], session=str(n)) for n in range(400)}
    moved = {n for n in before if before[n] != after[n]}

    assert moved == {n for n in before if before[n] == workers[0].url}
    assert len({after[n] for n in moved}) == 7


def test_worker_over_its_share_hands_a_key_to_the_same_next_one():
    made, workers = policy(min_capacity=1), make_workers(4)
    home = home_of(made, workers, session="s")
    busy = tuple(make_worker(worker.url, load=5 if worker.url == home else 3) for worker in workers)

    requests = [make_request(session="s", user=str(n)) for n in range(10)]
    chosen = {made.select_single(busy, request).url for request in requests}

    assert len(chosen) == 1
    assert chosen != {home}
    assert (requests[0].reason, requests[0].reason_parts["rank"]) == ("overflow", 1)


@pytest.mark.parametrize(("load", "keeps"), [(3, True), (4, False)])
def test_share_counts_the_new_request_and_is_rounded_up(load, keeps):
    made, workers = policy(min_capacity=1), make_workers(4)
    home = home_of(made, workers, session="s")
    others = iter((11 - load, 0, 0))  # 11 in flight: 1.25 * (11 + 1) / 4 is 3.75
    busy = tuple(make_worker(each.url, load=load if each.url == home else next(others)) for each in workers)

    assert (home_of(made, busy, session="s") == home) == keeps


def test_quiet_fleet_keeps_a_key_at_home():
    made, workers = policy(min_capacity=2), make_workers(4)
    home = home_of(made, workers, session="s")
    busy = tuple(make_worker(each.url, load=1 if each.url == home else 0) for each in workers)

    assert home_of(made, busy, session="s") == home


def test_without_a_bound_a_key_never_moves():
    made, workers = policy(load_factor=None), make_workers(4)
    home = home_of(made, workers, session="s")
    busy = tuple(make_worker(each.url, load=500 if each.url == home else 0) for each in workers)

    assert home_of(made, busy, session="s") == home


def test_no_worker_holds_more_than_its_share(policy_harness):
    harness = policy_harness(policy(min_capacity=1), make_workers(4))
    for number in range(1, 201):
        harness.send(make_request(session="the only one"))
        assert max(worker.load for worker in harness.workers) <= 1.25 * number / 4 + 1


def test_prefix_hash_has_the_names_and_defaults_of_its_origin():
    config = PrefixHashPolicy.Config()
    assert (config.prefix_token_count, config.load_factor) == (256, 1.25)
