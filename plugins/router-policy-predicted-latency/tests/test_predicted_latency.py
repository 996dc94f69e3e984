import random
from collections import Counter, deque

import pytest
from pydantic import ValidationError

from router_core.api import Leg, OutcomeStatus, WorkerRole
from router_core.contract.worker import assign
from router_core.testing.conformance import PolicyHarness, make_request, make_worker, make_workers
from router_policy_predicted_latency import PredictedLatencyPolicy
from router_policy_predicted_latency.cost import cheapest

TOKEN_S = 1e-4
GIVEN = {
    "prefill_token_s": TOKEN_S,
    "prefill_pair_s": 0,
    "decode_sequence_s": 2e-5,
    "decode_context_token_s": 6e-8,
}


def make_harness(workers=2, **options):
    return PolicyHarness(PredictedLatencyPolicy(PredictedLatencyPolicy.Config(**options)), workers)


def prompt(name, tokens, **facts):
    """Return a request of about `tokens` tokens; those of one name begin alike."""
    return make_request((f"{name:<16}" * (tokens // 4 + 1))[: 4 * tokens], needs=PredictedLatencyPolicy.needs, **facts)


def place(harness, name, tokens, **facts):
    return harness.select(prompt(name, tokens, **facts))


def serve(harness, attempt, *, prefill_s=0.0, decode_s=0.0, **usage):
    harness.pool.advance(prefill_s)
    attempt.first_token()
    harness.pool.advance(decode_s)
    attempt.complete(**usage)
    return attempt.worker


# --- prefixes and queues ---


def test_a_conversation_stays_where_its_beginning_is():
    harness = make_harness(4)
    for name in ("one", "two", "three"):
        home = serve(harness, place(harness, name, 4000), prefill_s=0.3, decode_s=5)
        for turn in range(1, 5):
            attempt = place(harness, name, 4000 + 600 * turn)
            assert attempt.worker is home
            assert attempt.request.reason == "cache_hit"
            serve(harness, attempt, prefill_s=0.1, decode_s=5)


def test_a_short_prompt_with_a_known_template_goes_where_it_is_known():
    harness = make_harness(4)
    home = serve(harness, place(harness, "template", 200), prefill_s=0.02, decode_s=60)
    assert place(harness, "template", 200).worker is home


def test_one_hot_prompt_is_spread_when_its_worker_has_a_queue():
    harness = make_harness(4, **GIVEN)
    serve(harness, place(harness, "hot", 2000), prefill_s=0.2)
    counts = Counter(place(harness, "hot", 2300).worker.url for _ in range(64))
    assert len(counts) == 4
    assert max(counts.values()) < 32


def test_a_hot_prompt_is_given_to_more_workers_for_good_and_a_rare_one_is_not():
    harness = make_harness(4, **GIVEN)
    for name in ("hot", "rare"):
        serve(harness, place(harness, name, 2000), prefill_s=0.2)
    reasons, decoding = Counter(), deque()
    for number in range(400):  # ten a second; each decodes for four seconds, so that its worker's steps grow
        name = "rare" if number % 50 == 49 else "hot"
        attempt = place(harness, name, 2300)
        reasons[name, attempt.request.reason] += 1
        attempt.first_token()
        decoding.append(attempt)
        if len(decoding) > 40:
            decoding.popleft().complete()
        harness.pool.advance(0.1)
    assert reasons["hot", "hot_prefix"] == 3  # once for each worker that had it not
    assert reasons["rare", "hot_prefix"] == 0


def test_a_credit_is_not_lessened_by_the_queues_of_others():
    harness = make_harness(2, **GIVEN)
    home = serve(harness, place(harness, "known", 3000), prefill_s=0.3)
    place(harness, "known", 100_000)
    policy, now = harness.policy, harness.pool.now()
    states = list(policy._states.values())
    for state in states:
        state.other_rate = 1.0
    matched = [2944 if state.url == home.url else 0 for state in states]
    facts = {"index": policy._index, "demand": policy._demand, "decode_weight": 0.05, "choose": random.Random(0)}
    quote = cheapest(states, matched, 3000, now=now, most=2944, is_uneven=True, regret_s=0.2, **facts)
    assert states[quote.position].url != home.url
    assert quote.credit == pytest.approx(0.2)


def test_a_prompt_goes_where_it_drives_nothing_out_that_may_be_asked_for_again():
    harness = make_harness(2, cache_tokens=20_000, **GIVEN)
    homes = Counter(serve(harness, place(harness, "often", 3000 + 100 * turn), decode_s=1).url for turn in range(40))
    (home,) = homes
    states = {state.url: state for state in harness.policy._states.values()}
    harness.pool.advance(60.0)
    for number in range(10):  # others find no room there but what is held for those that come again
        states[home].fill, states[home].return_rate, states[home].other_rate = 1.0, 0.0, 0.0
        assert serve(harness, place(harness, f"new {number}", 1000)).url != home
        states[home].fill = 0.0
        harness.pool.advance(60.0)


def test_a_choice_is_explained_by_parts_that_add_up():
    harness = make_harness(2)
    serve(harness, place(harness, "known", 3000), prefill_s=0.3, decode_s=60)
    parts = place(harness, "known", 3000).request.reason_parts
    sum_s = parts["wait_s"] + parts["start_s"] + parts["decode_s"] - parts["credit_s"]
    sum_s += parts["prefill_weight"] * parts["prefill_s"]
    assert parts["cost_s"] == pytest.approx(sum_s)


def test_long_prompts_weigh_more_than_short_ones():
    harness = make_harness(2, **GIVEN)
    busy = place(harness, "long", 50_000).worker
    assert {place(harness, f"short {number}", 500).worker for number in range(20)}.isdisjoint({busy})


@pytest.mark.parametrize("rounds", [30, 31], ids=["even_are_due", "odd_are_due"])
def test_a_long_prompt_keeps_out_of_the_way_of_conversations_that_are_about_to_come_back(rounds):
    harness = make_harness(2, **GIVEN)
    homes = {}
    for turn in range(rounds):  # at each worker three conversations, back every eight seconds, in turns every four
        for number in range(3):
            attempt = place(harness, f"{turn % 2} {number}", 4000 + 300 * turn)
            homes.setdefault(turn % 2, attempt.worker)
            serve(harness, attempt)
        harness.pool.advance(4.0 if turn < rounds - 1 else 3.0)
    just_left, due = (rounds - 1) % 2, rounds % 2
    assert homes[due] is not homes[just_left]
    assert place(harness, "long", 8000).worker is homes[just_left]


def serve_open_loop(prompts, *, workers=4, gap_s=0.1):
    """Send prompts of so many tokens at a fixed rate; return each one's tokens, worker and wait in seconds.

    Workers prefill one prompt after another; nothing else takes time.
    """
    harness = make_harness(workers, **GIVEN)
    now, number, waiting, free_at, placed = 0.0, 0, {}, Counter(), []
    while number < len(prompts) or waiting:
        over = min((queue[0][0] for queue in waiting.values()), default=float("inf"))
        arrival = number * gap_s if number < len(prompts) else float("inf")
        harness.pool.advance(min(over, arrival) - now)
        now = min(over, arrival)
        if over <= arrival:
            url = next(url for url, queue in waiting.items() if queue[0][0] == over)
            attempt = waiting[url].popleft()[1]
            attempt.first_token()
            attempt.complete(completion_tokens=100)
            if not waiting[url]:
                del waiting[url]
            continue
        attempt = place(harness, f"{number}", prompts[number])
        url = attempt.worker.url
        wait_s = max(0.0, free_at[url] - now)
        free_at[url] = now + wait_s + prompts[number] * TOKEN_S
        waiting.setdefault(url, deque()).append((free_at[url], attempt))
        placed.append((prompts[number], url, wait_s))
        number += 1
    return placed


def test_very_long_prompts_do_not_pile_up_on_a_worker_that_others_avoid():
    prompts = [100_000 if number % 60 == 30 else 50 + 37 * number % 500 for number in range(600)]
    placed = serve_open_loop(prompts)
    giants = [(url, wait_s) for tokens, url, wait_s in placed if tokens == 100_000]
    assert max(Counter(url for url, _ in giants).values()) <= 5  # of 10
    assert max(wait_s for _, wait_s in giants) < 10.0
    assert sum(wait_s for *_, wait_s in placed) / len(placed) < 0.01


def test_a_prefix_is_left_for_an_idle_worker_when_its_queue_is_longer_than_the_prefill_it_saves():
    harness = make_harness(2, **GIVEN)
    home = serve(harness, place(harness, "known", 3000), prefill_s=0.3, decode_s=60)
    long = place(harness, "known", 100_000)
    assert long.worker is home
    attempt = place(harness, "known", 3000)
    assert attempt.worker is not home
    assert attempt.request.reason == "shorter_queue"


def test_unlike_prompts_are_cache_misses_and_all_parts_are_told():
    harness = make_harness(2)
    request = place(harness, "new", 3000).request
    assert request.reason == "cache_miss"
    assert set(request.reason_parts) == {
        "cost_s", "wait_s", "prefill_s", "prefill_weight", "decode_s", "start_s", "credit_s",
        "matched_tokens", "cached_share"
    }  # fmt: skip


# --- what is learned ---


def test_a_slow_worker_is_found_out_and_gets_less():
    harness = make_harness(2)
    slow, _ = harness.workers
    for number in range(80):
        attempt = place(harness, f"lesson {number}", 4000)
        serve(harness, attempt, prefill_s=2.0 if attempt.worker is slow else 0.2, decode_s=1)
    picks = Counter()
    for number in range(60):
        picks[place(harness, f"burst {number}", 4000).worker is slow] += 1
    assert picks[False] > 4 * picks[True] > 0


def test_a_cache_that_is_smaller_than_believed_is_found_out():
    harness = make_harness(1)
    url = harness.workers[0].url
    believed = []
    for number in range(200):
        attempt = place(harness, f"document {number % 20}", 8000)
        serve(harness, attempt, prefill_s=0.1, prompt_tokens=8000, cached_tokens=0)
        harness.pool.advance(10)
        believed.append(harness.pool.gauged("cache_tokens", worker=url))
    assert believed[-1] < 160_000 < believed[10]


def test_a_cache_that_is_larger_than_believed_is_found_out():
    harness = make_harness(1)
    for _ in range(3):
        serve(harness, place(harness, "elsewhere", 8000), prompt_tokens=8000, cached_tokens=7900)
        harness.pool.advance(10)
        serve(harness, place(harness, "another", 8000), prompt_tokens=8000, cached_tokens=7900)
    assert harness.pool.gauged("cache_tokens", worker=harness.workers[0].url) > 2_000_000


def test_nothing_is_concluded_from_answers_without_usage():
    harness = make_harness(1)
    for _ in range(50):
        serve(harness, place(harness, "same", 8000), prefill_s=0.1, decode_s=1)
    assert harness.pool.gauged("cache_tokens", worker=harness.workers[0].url) == 2_000_000


def test_a_restarted_engine_is_not_believed_to_remember():
    harness = make_harness(1)
    serve(harness, place(harness, "old", 8000), prompt_tokens=8000, cached_tokens=0)
    place(harness, "other", 100).complete(OutcomeStatus.ERROR)
    serve(harness, place(harness, "old", 8000), prompt_tokens=8000, cached_tokens=0)
    attempt = place(harness, "other", 8000)
    assert attempt.request.reason == "cache_miss"
    assert harness.pool.gauged("cache_tokens", worker=harness.workers[0].url) in (None, 2_000_000)


def test_an_engine_that_was_only_away_keeps_its_cache():
    harness = make_harness(2)
    home = serve(harness, place(harness, "old", 8000), prompt_tokens=8000, cached_tokens=0)
    harness.set_health(home, healthy=False)
    harness.pool.advance(30)
    harness.set_health(home, healthy=True)
    serve(harness, place(harness, "old", 8000), prompt_tokens=8000, cached_tokens=7900)
    assert place(harness, "old", 8000).worker is home


# --- trouble ---


def test_a_worker_that_fails_at_once_does_not_draw_everything():
    harness = make_harness(2)
    broken, _ = harness.workers
    picks = Counter()
    for number in range(50):
        attempt = place(harness, f"prompt {number}", 1000)
        picks[attempt.worker is broken] += 1
        if attempt.worker is broken:
            attempt.complete(OutcomeStatus.ERROR)
        else:
            serve(harness, attempt, prefill_s=0.1)
    assert picks[True] < 10


def test_a_worker_that_hangs_is_avoided_more_the_longer_it_does():
    harness = make_harness(2)
    hung = place(harness, "stuck", 2000).worker
    harness.pool.advance(60)
    assert {place(harness, f"prompt {number}", 1000).worker for number in range(20)}.isdisjoint({hung})


@pytest.mark.parametrize("status", [OutcomeStatus.CANCELLED, OutcomeStatus.ERROR, OutcomeStatus.TIMEOUT])
def test_a_request_that_ends_before_its_first_token_teaches_no_prefix(status):
    harness = make_harness(2)
    place(harness, "never computed", 8000).complete(status)
    harness.pool.advance(120)
    assert place(harness, "never computed", 8000).request.reason == "cache_miss"


def test_a_request_cancelled_after_its_first_token_leaves_its_prefix():
    harness = make_harness(2)
    attempt = place(harness, "computed", 8000)
    attempt.first_token()
    attempt.complete(OutcomeStatus.CANCELLED)
    assert place(harness, "computed", 8000).request.reason == "cache_hit"


def test_everything_is_off_the_books_when_all_requests_ended():
    harness = make_harness(3)
    attempts = [place(harness, f"prompt {number % 7}", 1000 + 100 * number) for number in range(60)]
    for number, attempt in enumerate(attempts):
        if number % 3:
            attempt.first_token()
        attempt.complete([OutcomeStatus.SUCCESS, OutcomeStatus.CANCELLED][number % 2])
    policy = harness.policy
    assert not policy._flights
    for state in policy._states.values():
        assert (state.flights, state.decoding, state.context_tokens, state.pending_s) == (0, 0, 0, 0.0)


def test_a_choice_that_was_overruled_is_forgotten():
    harness = make_harness(2)
    harness.policy.select_single(harness.candidates(), prompt("overruled", 50_000))
    harness.pool.advance(10)
    assert not harness.policy._flights
    assert {state.backlog_s(harness.pool.now()) for state in harness.policy._states.values()} == {0.0}


def test_a_worker_that_left_while_busy_ends_quietly_and_a_new_one_shares_what_is_known():
    harness = make_harness(1)
    old = harness.workers[0]
    for number in range(40):
        serve(harness, place(harness, f"lesson {number}", 4000), prefill_s=2.0)
    attempt = place(harness, "last", 4000)
    harness.remove_worker(old)
    harness.add_worker(make_worker("http://new"))
    harness.pool.advance(1)
    attempt.first_token()
    attempt.complete()
    assert place(harness, "first", 4000).request.reason_parts["prefill_s"] > 1.0


# --- legs ---


def test_decode_goes_where_least_context_is_decoded():
    harness = make_harness(make_workers(1, WorkerRole.PREFILL) + make_workers(2, WorkerRole.DECODE))
    _, busy = harness.select_pair(prompt("long", 50_000))
    for number in range(5):
        _, decode = harness.select_pair(prompt(f"short {number}", 100))
        assert decode.worker is not busy.worker


def test_both_legs_of_a_pair_leave_the_books():
    harness = make_harness(make_workers(2, WorkerRole.PREFILL) + make_workers(2, WorkerRole.DECODE))
    for number in range(10):
        prefill, decode = harness.select_pair(prompt(f"pair {number}", 3000))
        harness.pool.advance(0.2)
        prefill.first_token()
        prefill.complete()
        decode.first_token()
        harness.pool.advance(1)
        decode.complete(completion_tokens=50)
    policy = harness.policy
    assert not policy._flights
    assert not policy._decode_legs
    assert {state.flights for state in policy._states.values()} == {0}


def test_a_decode_leg_alone_says_why():
    harness = make_harness(make_workers(2, WorkerRole.DECODE))
    request = prompt("alone", 100, leg=Leg.DECODE)
    harness.select(request, WorkerRole.DECODE)
    assert request.reason == "shortest_step"


# --- options ---


@pytest.mark.parametrize(
    "options",
    [
        {"prefill_token_s": 1e-4},
        {"decode_context_token_s": 1e-8},
        {"cache_tokens": 0},
        {"decode_weight": -1},
        {"max_blocks": 0},
        {"prefill_token_s": float("nan"), "prefill_pair_s": 0},
    ],
)
def test_options_that_make_no_sense_are_refused(options):
    with pytest.raises(ValidationError):
        PredictedLatencyPolicy.Config(**options)


def test_a_full_cache_counts_as_a_wait():
    harness = make_harness(2, cache_tokens=20_000, **GIVEN)
    full = place(harness, "large", 18_000)
    harness.pool.advance(1.8)
    full.first_token()
    assert place(harness, "next", 4000).worker is not full.worker


def test_unhealthy_is_noticed_between_requests():
    harness = make_harness(1)
    (worker,) = harness.workers
    assign(worker, is_healthy=False)
    harness.pool.advance(6)
    assert harness.policy._states[worker.url].is_suspect
