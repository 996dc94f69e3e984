"""Every check must catch the policy it exists for, and let a sound one pass."""

import itertools
import random
import threading

import pytest

from router_core.api import PolicyConfig, hookimpl, least_loaded
from router_core.testing import conformance
from router_core.testing.conformance import PAIR_POOL, REGULAR_POOL, PolicyFaultError, Subject


class Sound:
    """Least loaded, by the book."""

    class Config(PolicyConfig):
        margin: int = 0
        """How much."""

    def __init__(self, config):
        pass

    @hookimpl
    def select_single(self, workers):
        return least_loaded(workers)


class Base:
    @hookimpl
    def select_single(self, workers, request):
        return self.choose(workers, request)


class Misspelt(Base):
    @hookimpl
    def on_request_completed(self, worker):
        pass


class Undescribed(Base):
    class Config(PolicyConfig):
        margin: int = 0

    def __init__(self, config):
        pass


class Required(Undescribed):
    class Config(PolicyConfig):
        margin: int
        """How much."""


class ReadsUndeclaredText(Base):
    def choose(self, workers, request):
        return workers[len(request.text) % len(workers)]


class ReadsUndeclaredPrefix(Base):
    def choose(self, workers, request):
        return workers[len(request.prefix) % len(workers)]


class ReturnsStrangers(Base):
    def choose(self, workers, request):
        return conformance.make_worker("http://nobody")


class ReturnsIndices(Base):
    def choose(self, workers, request):
        return 0


class RefusesAll(Base):
    def choose(self, workers, request):
        return None


class RefusesTheOnlyOne(Base):
    def choose(self, workers, request):
        return workers[1] if len(workers) > 1 else None


class OnlySmallFleets(Base):
    def choose(self, workers, request):
        return dict(enumerate(workers[:100]))[sum(w.load == 0 for w in workers) % len(workers)]


class PicksTheDeparted(Base):
    """Remembers where a user went and never forgets."""

    def __init__(self):
        self.homes = {}

    def choose(self, workers, request):
        return self.homes.setdefault((request.user, request.leg), least_loaded(workers))


class CachesTheFleet(Base):
    """Knows the workers of the first call."""

    def __init__(self):
        self.load = {}

    def choose(self, workers, request):
        if not self.load:
            self.load = {worker.url: 0 for worker in workers}
        return min(workers, key=lambda worker: self.load[worker.url])


class NeverForgives(Base):
    """A worker that was away once is never used again."""

    def __init__(self):
        self.known, self.bad = set(), set()

    def choose(self, workers, request):
        urls = {worker.url for worker in workers}
        self.bad |= {url for url in self.known if url not in urls and url.split("-")[0] == workers[0].url.split("-")[0]}
        self.known |= urls
        return least_loaded([worker for worker in workers if worker.url not in self.bad] or workers)


class GlobalRandom(Base):
    def choose(self, workers, request):
        return random.choice(workers)


class SystemRandom(Base):
    def __init__(self):
        self.random = random.Random()

    def choose(self, workers, request):
        return self.random.choice(workers)


class ClassCounter(Base):
    turns = itertools.count()

    def choose(self, workers, request):
        return workers[next(type(self).turns) % len(workers)]


class ClassDict(Base):
    homes = {}

    def choose(self, workers, request):
        url = self.homes.setdefault(request.user, workers[len(self.homes) % len(workers)].url)
        return next((w for w in workers if w.url == url), workers[0])


class OneRotation(Base):
    """One counter for both legs: prefill always gets the even numbers."""

    def __init__(self):
        self.turn = -1

    def choose(self, workers, request):
        self.turn += 1
        return workers[self.turn % len(workers)]


class LeaksSlots(Base):
    """Counts by itself and forgets to give back what failed."""

    def __init__(self):
        self.free = 20

    def choose(self, workers, request):
        if not self.free:
            return None
        self.free -= 1
        return least_loaded(workers)

    @hookimpl
    def on_request_complete(self, success):
        self.free += success


class WantsTelemetry(Base):
    needs = frozenset({"telemetry"})

    def choose(self, workers, request):
        return min(workers, key=lambda worker: worker.engine.running_requests + 0)


class WantsUsers(Base):
    def choose(self, workers, request):
        return workers[len(request.user) % len(workers)]


class WantsPlainText(Base):
    needs = frozenset({"text"})

    def choose(self, workers, request):
        return workers[len(request.text.encode()) % len(workers)]


class WantsSomeText(Base):
    needs = frozenset({"text"})

    def choose(self, workers, request):
        return workers[ord(request.text[0]) % len(workers)]


class Hoards(Base):
    def __init__(self):
        self.seen = {}

    def choose(self, workers, request):
        self.seen[request.user] = workers[0].url
        return least_loaded(workers)


class HoardsPrompts(Base):
    needs = frozenset({"prefix"})

    def __init__(self):
        self.seen = set()

    def choose(self, workers, request):
        self.seen.update(request.prefix)
        return least_loaded(workers)


class MetricPerUser(Base):
    @hookimpl
    def on_start(self, pool):
        self.pool = pool

    def choose(self, workers, request):
        self.pool.count("requests_total", user=str(request.user))
        return least_loaded(workers)


class LeavesAThread(Base):
    def __init__(self):
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.done.wait, args=(30,), name="upkeep", daemon=True)
        self.instances.append(self)

    instances = []

    @hookimpl
    def on_start(self, pool):
        self.thread.start()

    def choose(self, workers, request):
        return least_loaded(workers)


class FaultyTimer(Base):
    @hookimpl
    def on_start(self, pool):
        pool.every(60, lambda: {}["missing"])

    def choose(self, workers, request):
        return least_loaded(workers)


class FaultyStop(FaultyTimer):
    @hookimpl
    def on_start(self, pool):
        pass

    @hookimpl
    async def on_stop(self):
        raise OSError("cannot stop")


class SwapsRoles:
    @hookimpl
    def select_pair(self, prefill_workers, decode_workers):
        return decode_workers[0], prefill_workers[0]


class PicksFirst(Base):
    def choose(self, workers, request):
        return workers[0]


class IdleFirst(Base):
    """The least loaded, the first of equals."""

    def choose(self, workers, request):
        return min(workers, key=lambda worker: worker.load)


class StaleLoad(Base):
    """Reads loads once in a while, as if polled."""

    def __init__(self):
        self.polled, self.calls = {}, 0

    def choose(self, workers, request):
        if self.calls % 300 == 0 or len(self.polled) != len(workers):
            self.polled = {worker.url: (worker.load, worker.last_reserved) for worker in workers}
        self.calls += 1
        return min(workers, key=lambda worker: self.polled.get(worker.url, (0, 0)))


class SmallestHistory(Base):
    """Evens out what each has ever served: a newcomer has served nothing."""

    def choose(self, workers, request):
        return min(workers, key=lambda worker: (worker.requests_processed, worker.last_reserved))


class OwnCounterReset(Base):
    """Keeps its own counts and forgets them with each change of the candidates."""

    def __init__(self):
        self.counts, self.candidates = {}, {}

    def choose(self, workers, request):
        before = self.candidates.get(request.leg)
        if before is not None and before is not workers:
            self.counts[workers[0].url] = -10_000
        self.candidates[request.leg] = workers
        chosen = min(workers, key=lambda worker: self.counts.get(worker.url, 0))
        self.counts[chosen.url] = self.counts.get(chosen.url, 0) + 1
        return chosen


class MinusOne(Base):
    needs = frozenset({"telemetry"})

    def choose(self, workers, request):
        return min(workers, key=lambda worker: worker.engine.running_requests if worker.engine else -1)


class FirstHealthyFallback(Base):
    def __init__(self):
        self.homes = {}

    def choose(self, workers, request):
        home = self.homes.setdefault((request.user, request.leg), least_loaded(workers).url)
        return next((worker for worker in workers if worker.url == home), workers[0])


class Scatters(Base):
    """Claims affinity and has none."""

    choose = staticmethod(lambda workers, request: least_loaded(workers))


class Sticky(Base):
    """Keeps sessions together; the base of those that let go too soon."""

    def __init__(self):
        self.homes = {}

    def choose(self, workers, request):
        home = self.homes.setdefault((request.session, request.leg), least_loaded(workers).url)
        return next((worker for worker in workers if worker.url == home), None) or least_loaded(workers)


class GivesUpWhenHot(Sticky):
    def choose(self, workers, request):
        if max(w.load for w in workers) - min(w.load for w in workers) > 32:
            return least_loaded(workers)
        return super().choose(workers, request)


class ForgetsOnABlip(Sticky):
    def choose(self, workers, request):
        home = self.homes.get((request.session, request.leg))
        if home and home not in {worker.url for worker in workers}:
            self.homes = {key: url for key, url in self.homes.items() if url != home}
        return super().choose(workers, request)


CAUGHT = [
    ("has_no_contract_slips", Misspelt, AssertionError, "on_request_complete"),
    ("options_are_documented", Undescribed, AssertionError, "margin has no description"),
    ("options_are_documented", Required, AssertionError, "margin has no default"),
    ("reads_only_declared_needs", ReadsUndeclaredText, AssertionError, "request.text is not declared"),
    ("reads_only_declared_needs", ReadsUndeclaredPrefix, AssertionError, "request.prefix is not declared"),
    ("picks_only_candidates", ReturnsStrangers, PolicyFaultError, "http://nobody"),
    ("picks_only_candidates", ReturnsIndices, PolicyFaultError, "returned an int"),
    ("takes_the_only_candidate", RefusesAll, AssertionError, "request 0 was refused"),
    ("takes_the_only_candidate", RefusesTheOnlyOne, AssertionError, "request 0 was refused"),
    ("survives_a_thousand_workers", OnlySmallFleets, KeyError, ""),
    ("never_picks_a_departed_worker", PicksTheDeparted, PolicyFaultError, "http://"),
    ("survives_churn", CachesTheFleet, KeyError, ""),
    ("recovered_worker_serves_again", NeverForgives, AssertionError, "none of the next 60"),
    ("repeats_under_equal_seed", GlobalRandom, AssertionError, "pool.random"),
    ("repeats_under_equal_seed", SystemRandom, AssertionError, "pool.random"),
    ("instances_share_nothing", ClassCounter, AssertionError, "keep state on self"),
    ("instances_share_nothing", ClassDict, AssertionError, "keep state on self"),
    ("load_returns_to_zero", LeaksSlots, AssertionError, "never released"),
    ("copes_without_telemetry", WantsTelemetry, AttributeError, ""),
    ("copes_with_anonymous_requests", WantsUsers, TypeError, ""),
    ("copes_with_odd_prompts", WantsPlainText, UnicodeEncodeError, ""),
    ("copes_with_odd_prompts", WantsSomeText, IndexError, ""),
    ("memory_stays_bounded", Hoards, AssertionError, "memory grew"),
    ("memory_stays_bounded", HoardsPrompts, AssertionError, "memory grew"),
    ("memory_stays_bounded", MetricPerUser, AssertionError, "memory grew"),
    ("stops_cleanly", LeavesAThread, AssertionError, "upkeep"),
    ("stops_cleanly", FaultyTimer, KeyError, ""),
    ("stops_cleanly", FaultyStop, OSError, "cannot stop"),
    ("spreads_when_idle", PicksFirst, AssertionError, "200 of 200"),
    ("spreads_when_idle", IdleFirst, AssertionError, "200 of 200"),
    ("spreads_a_burst", StaleLoad, AssertionError, "100 of 100"),
    ("fresh_worker_is_not_flooded", SmallestHistory, AssertionError, "restarted"),
    ("blip_does_not_make_idle", OwnCounterReset, AssertionError, "60 of 60"),
    ("unknown_load_is_not_idle", MinusOne, AssertionError, "100 of 100"),
    ("orphans_are_spread", FirstHealthyFallback, AssertionError, "orphans"),
    ("affinity_holds_while_idle", Scatters, AssertionError, "came back"),
    ("affinity_survives_a_hot_worker", GivesUpWhenHot, AssertionError, "(hot)"),
    ("affinity_survives_a_blip", ForgetsOnABlip, AssertionError, "(blip)"),
]
PAIR_ONLY = [
    ("picks_only_candidates", SwapsRoles, PolicyFaultError, "http://"),
    ("legs_share_no_state", OneRotation, AssertionError, "keep state by leg"),
]
EVERY_CHECK = sorted(name for name in conformance.__all__ if name.startswith("check_"))


def subject_of(policy_class, roles):
    return Subject(policy_class, roles=roles, affinity="session")


@pytest.mark.parametrize("roles", [REGULAR_POOL, PAIR_POOL], ids=["regular", "pair"])
@pytest.mark.parametrize(("name", "policy_class", "error", "words"), CAUGHT)
def test_bad_policy_is_caught(name, policy_class, error, words, roles):
    check = getattr(conformance, f"check_{name}")

    with pytest.raises(error) as caught:
        check(subject_of(policy_class, roles))

    assert words in str(caught.value)


@pytest.mark.parametrize(("name", "policy_class", "error", "words"), PAIR_ONLY)
def test_bad_pair_policy_is_caught(name, policy_class, error, words):
    with pytest.raises(error) as caught:
        getattr(conformance, f"check_{name}")(subject_of(policy_class, PAIR_POOL))

    assert words in str(caught.value)


@pytest.mark.parametrize("roles", [REGULAR_POOL, PAIR_POOL], ids=["regular", "pair"])
@pytest.mark.parametrize("name", [name for name in EVERY_CHECK if "affinity" not in name])
def test_sound_policy_passes(name, roles):
    getattr(conformance, name)(Subject(Sound, roles=roles))


@pytest.mark.parametrize("roles", [REGULAR_POOL, PAIR_POOL], ids=["regular", "pair"])
@pytest.mark.parametrize("name", [name for name in EVERY_CHECK if "affinity" in name])
def test_sticky_policy_passes_for_what_it_keeps(name, roles):
    getattr(conformance, name)(Subject(Sticky, roles=roles, affinity="session"))


def test_every_check_is_shown_to_catch_something():
    caught = {f"check_{name}" for name, *_ in CAUGHT + PAIR_ONLY}

    assert caught == set(EVERY_CHECK)


@pytest.fixture(autouse=True)
def _let_threads_go():
    yield
    for policy in LeavesAThread.instances:
        policy.done.set()
        if policy.thread.ident:
            policy.thread.join()
    LeavesAThread.instances.clear()
