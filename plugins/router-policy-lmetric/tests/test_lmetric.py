from collections import Counter

from router_core.api import Leg, WorkerRole
from router_core.testing.conformance import PAIR_POOL, PolicyConformance, make_request, make_worker, make_workers
from router_policy_lmetric import LmetricPolicy
from router_policy_lmetric.hot_spots import HotSpots

SMALL = {"max_blocks": 1000}


class TestConformance(PolicyConformance):
    policy_class = LmetricPolicy
    memory_options = SMALL
    roles = (WorkerRole.REGULAR,)
    affinity = "prompt"


class TestPairConformance(PolicyConformance):
    policy_class = LmetricPolicy
    memory_options = SMALL
    roles = PAIR_POOL  # no affinity: a decode leg goes by load alone


def started(policy_harness, workers=2, **options):
    return policy_harness(LmetricPolicy(LmetricPolicy.Config(**options)), workers)


def prompt(name, tokens=4096):
    return make_request((f"{name}. " * 4 * tokens)[: 4 * tokens])


def pick(*workers, request):
    return LmetricPolicy(LmetricPolicy.Config()).select_single(workers, request).url


def test_requests_in_flight_multiply_the_prefill():
    request = prompt("a", 1000)
    assert pick(make_worker("busy", load=2), make_worker("idle", load=1), request=request) == "idle"
    assert (request.reason, request.reason_parts) == (
        "least_product",
        {"cost": 2000, "uncached": 1000, "pending": 0, "cached_share": 0.0},
    )


def test_cached_prompt_outweighs_requests_in_flight(policy_harness):
    harness = started(policy_harness)
    home = harness.serve(prompt("a"))[0]
    for _ in range(5):
        harness.send(prompt("a"))

    assert home.load == 5


def test_prefill_that_is_over_is_no_longer_counted(policy_harness):
    harness = started(policy_harness)
    first, second = harness.select(prompt("a")), harness.select(prompt("b"))
    assert first.worker is not second.worker
    second.first_token()

    assert harness.select(prompt("c", 256)).worker is second.worker


def test_product_of_a_cached_prompt_is_not_zero():
    workers = make_worker("busy", load=3), make_worker("idle", load=0)
    assert pick(*workers, request=make_request("")) == "idle"


def test_idle_equals_take_turns(policy_harness):
    harness = started(policy_harness, 3)
    assert "".join(harness.serve(prompt(str(n)))[0].url[-1] for n in range(6)) == "012012"


def test_hot_beginning_is_given_to_others_too(policy_harness):
    harness = started(policy_harness, 4)
    counts, reasons = Counter(), Counter()
    for _ in range(1200):
        request = prompt("everybody asks this", 512)
        counts[harness.serve(request)[0].url] += 1
        reasons[request.reason] += 1

    assert reasons["hot_prefix"] == 3  # once for each worker that had it not
    assert len(counts) == 4


def test_without_the_guard_a_hot_beginning_stays_where_it_is(policy_harness):
    harness = started(policy_harness, 4, hot_spot_guard=False)
    assert len({harness.serve(prompt("everybody asks this", 512))[0].url for _ in range(1200)}) == 1


def test_decode_leg_goes_where_least_is_in_flight():
    full, roomy = make_worker("full", decode_tokens=900), make_worker("roomy", load=3, decode_tokens=100)
    request = make_request("Hello", leg=Leg.DECODE)
    assert pick(full, roomy, request=request) == "roomy"
    assert request.reason == "decode"


# --- hot spots ---


def test_share_of_the_requests_must_exceed_the_share_of_the_workers():
    spots = HotSpots(window=100)
    for number in range(60):
        spots.is_hot(-number, holders=1, others=3)
    answers = [spots.is_hot(7, holders=1, others=3) for _ in range(40)]

    assert answers.index(True) == 26  # 26 of 100 is the first above 1 of 4, and the second alarm in a row counts


def test_alarms_that_do_not_come_in_a_row_are_forgotten():
    spots = HotSpots(window=10)
    for _ in range(9):
        assert not spots.is_hot(7, holders=10, others=10)  # the window counts as full: 9 of 10
    assert not spots.is_hot(7, holders=10, others=0)
    assert [spots.is_hot(7, holders=1, others=1) for _ in range(2)] == [False, True]


def test_class_nobody_or_everybody_holds_is_never_hot():
    spots = HotSpots(window=10)
    assert not any(spots.is_hot(7, holders=0, others=4) or spots.is_hot(7, holders=4, others=0) for _ in range(30))


def test_counts_are_bounded_by_the_window():
    spots = HotSpots(window=50)
    for number in range(500):
        spots.is_hot(number, holders=1, others=1)
    assert len(spots._counts) == 50
    assert make_workers(1)
