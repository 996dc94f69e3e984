"""Whatever a policy does, a request gets an answer, the fault is told, and nobody else suffers from it."""

import asyncio
import logging
import re

import pytest

from router_core.api import Leg, OutcomeStatus, RequestOutcome, Worker, hookimpl
from router_core.contract.errors import PolicyContractError, StartupError
from router_core.plugin_host.faults import FaultLimits
from router_core.plugin_host.manager import PolicyManager
from router_core.plugin_host.watchdog import Watchdog

SUCCESS = RequestOutcome(OutcomeStatus.SUCCESS)
CANCELLED = RequestOutcome(OutcomeStatus.CANCELLED)


class First:
    @hookimpl
    def select_single(self, workers, request):
        request.explain("first")
        return workers[0]


class Diary:
    """Writes down every event it hears of."""

    def __init__(self, name="diary", pages=None):
        self.name = name
        self.pages = [] if pages is None else pages

    def write(self, *entry):
        self.pages.append((self.name, *entry))

    @hookimpl
    def on_start(self, pool):
        self.write("start", pool)

    @hookimpl
    def on_stop(self):
        self.write("stop")

    @hookimpl
    def on_worker_added(self, worker):
        self.write("added", worker.url)

    @hookimpl
    def on_worker_removed(self, worker):
        self.write("removed", worker.url)

    @hookimpl
    def on_first_token(self, worker, request):
        self.write("first token", worker.url, request.id)

    @hookimpl
    def on_request_complete(self, worker_url, success, worker, request, outcome):
        self.write("complete", worker_url, success, worker.url, request.id, outcome.status)


class DiaryPolicy(Diary, First):
    pass


class Context:
    """Stands for a PoolContext; says whether it was stopped."""

    def __init__(self, name):
        self.name = name
        self.is_stopped = False

    def stop(self):
        self.is_stopped = True

    def __eq__(self, other):
        return self.name == other

    __hash__ = None


def manager_of(policy, **options):
    return PolicyManager(policy, **{"name": "mine", "source": "router-policy-mine 0.1.0", **options})


def messages(caplog):
    return [record.getMessage() for record in caplog.records]


# --- choosing ---


def test_answer_of_the_policy_is_the_choice(workers, request_):
    manager = manager_of(First())
    assert manager.select_single(workers, request_) is workers[0]
    assert request_.reason == "first"
    assert (manager.decision_times.count, dict(manager.faults)) == (1, {})


def test_reason_of_an_earlier_attempt_is_forgotten(bad, workers, request_):
    request_.reason = "stale"
    manager_of(bad("bad_slow:Slow")()).select_single(workers, request_)
    assert request_.reason is None


def test_none_means_no_suitable_worker_and_is_no_fault(bad, workers, request_, caplog):
    manager = manager_of(bad("bad_wrong_return:WrongReturn")())
    assert [manager.select_single(workers, request_) for _ in range(9)] == [None] * 9
    assert (dict(manager.faults), manager.is_quarantined, messages(caplog)) == ({}, False, [])


def test_worker_with_the_url_of_a_candidate_means_that_candidate(bad, workers, request_):
    policy = bad("bad_wrong_return:WrongReturn")()
    policy.answer = Worker("http://w2")
    manager = manager_of(policy)
    assert manager.select_single(workers, request_) is workers[2]
    assert dict(manager.faults) == {}


async def coroutine():
    """Never runs."""


@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        (
            Worker("http://stranger"),
            "stranger",
            "returned http://stranger, which is no candidate; return one of `workers`",
        ),
        ("http://w0", "wrong_type", "returned a str; return one of `workers`, or None"),
        (0, "wrong_type", "returned an int; return one of `workers`, or None"),
        (coroutine, "wrong_type", "returned a coroutine; return one of `workers`, or None"),
    ],
    ids=["stranger", "url", "index", "coroutine"],
)
def test_unusable_answer_goes_by_the_fallback_and_is_told(bad, workers, request_, caplog, answer, kind, said):
    policy = bad("bad_wrong_return:WrongReturn")()
    policy.answer = answer
    manager = manager_of(policy)
    assert manager.select_single(workers, request_) is workers[1]
    assert request_.reason == "fallback"
    assert manager.faults == {("mine", kind): 1}
    assert messages(caplog) == [
        f"policy 'mine' (router-policy-mine 0.1.0): select_single {said}; the least loaded worker is taken"
    ]


def test_answer_that_claims_to_equal_everything_is_no_candidate(bad, workers, request_):
    class Chameleon:
        def __eq__(self, other):
            return True

        __hash__ = None

    policy = bad("bad_wrong_return:WrongReturn")()
    policy.answer = Chameleon()
    manager = manager_of(policy)
    assert manager.select_single(workers, request_) is workers[1]
    assert manager.faults == {("mine", "wrong_type"): 1}


def test_raising_policy_goes_by_the_fallback_and_is_told(bad, workers, request_, caplog):
    manager = manager_of(bad("bad_raising:Raising")())
    assert manager.select_single(workers, request_) is workers[1]
    assert request_.reason == "fallback"
    assert manager.faults == {("mine", "raised"): 1}
    assert messages(caplog) == [
        "policy 'mine' (router-policy-mine 0.1.0): select_single raised ValueError: boom; "
        "the least loaded worker is taken"
    ]
    assert caplog.records[0].exc_info is not None


def test_fallback_may_be_to_refuse(bad, workers, request_, caplog):
    manager = manager_of(bad("bad_raising:Raising")(), fallback="fail")
    assert manager.select_single(workers, request_) is None
    assert manager.select_pair(workers, workers, request_) is None
    assert request_.reason == "fallback"
    assert messages(caplog)[0].endswith("; the request is refused")


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError(), GeneratorExit()])
def test_no_exception_of_a_hooks_is_too_base_to_be_isolated(error, workers, request_, caplog):
    class Leaving:
        @hookimpl
        def select_single(self, workers):
            raise error

        @hookimpl
        def on_first_token(self):
            raise error

        @hookimpl
        def on_request_complete(self):
            raise error

    manager = manager_of(Leaving(), observers=[("watcher", LeavingObserver(error))])
    worker = manager.select_single(workers, request_)
    assert worker in workers
    manager.first_token(worker, request_)
    manager.request_complete(worker, request_, RequestOutcome(OutcomeStatus.SUCCESS))
    assert sum(manager.faults.values()) == 4
    assert any("select_single raised" in message for message in messages(caplog))


class LeavingObserver:
    def __init__(self, error):
        self.error = error

    @hookimpl
    def on_request_complete(self):
        raise self.error


# --- quarantine ---


def test_faults_in_a_row_end_in_quarantine_loudly(bad, workers, request_, caplog, clock):
    calls = []

    class Counting(bad("bad_raising:Raising")):
        @hookimpl
        def select_single(self, workers):
            calls.append(workers)
            raise ValueError("boom")

    manager = manager_of(Counting(), limits=FaultLimits(quarantine_after=3), clock=clock)
    answers = [manager.select_single(workers, request_) for _ in range(5)]
    manager.request_complete(workers[0], request_, SUCCESS)
    assert answers == [workers[1]] * 5
    assert request_.reason == "fallback"
    assert (len(calls), manager.is_quarantined) == (3, True)
    assert manager.faults == {("mine", "raised"): 3}  # a quarantined policy hears nothing any more
    assert messages(caplog)[-1] == (
        "policy 'mine' (router-policy-mine 0.1.0) is QUARANTINED after 3 faults in a row of select_single: "
        "every request goes to the least loaded worker until the router restarts"
    )
    assert caplog.records[-1].levelno == logging.ERROR


def test_one_good_answer_ends_the_row(bad, workers, request_):
    policy = bad("bad_wrong_return:WrongReturn")()
    manager = manager_of(policy, limits=FaultLimits(quarantine_after=2))
    for answer in ("fault", workers[0], "fault", None, "fault", Worker("http://w1"), "fault"):
        policy.answer = answer
        manager.select_single(workers, request_)
    assert not manager.is_quarantined
    assert manager.faults == {("mine", "wrong_type"): 4}


def test_late_answer_is_used_counted_and_ends_in_quarantine(bad, workers, request_, clock, caplog):
    policy = bad("bad_slow:Slow")()
    policy.dawdle = lambda: clock.advance(0.06)
    manager = manager_of(policy, limits=FaultLimits(quarantine_after=2), clock=clock)
    assert manager.select_single(workers, request_) is workers[0]
    assert manager.faults == {("mine", "over_budget"): 1}
    assert not manager.is_quarantined
    assert manager.select_single(workers, request_) is workers[0]
    assert manager.is_quarantined
    assert manager.select_single(workers, request_) is workers[1]
    assert (manager.decision_times.count, round(manager.decision_times.seconds, 9)) == (2, 0.12)
    assert messages(caplog)[0] == (
        "policy 'mine' (router-policy-mine 0.1.0): select_single took 60.0 ms, over its budget of 50 ms"
    )
    assert "QUARANTINED after 2 late answers in a row of select_single" in messages(caplog)[-1]


def test_late_answers_with_prompt_ones_between_do_not_quarantine(bad, workers, request_, clock):
    policy = bad("bad_slow:Slow")()
    manager = manager_of(policy, limits=FaultLimits(quarantine_after=2), clock=clock)
    for late_s in (0.06, 0.0, 0.06, 0.0):
        policy.dawdle = lambda late_s=late_s: clock.advance(late_s)
        manager.select_single(workers, request_)
    assert not manager.is_quarantined


def test_policy_that_only_fails_to_keep_its_books_is_quarantined_too(workers, request_, caplog):
    class BadBooks(First):
        @hookimpl
        def on_request_complete(self, worker_url):
            raise KeyError(worker_url)

    manager = manager_of(BadBooks(), limits=FaultLimits(quarantine_after=3))
    for _ in range(3):
        assert manager.select_single(workers, request_) is workers[0]
        manager.request_complete(workers[0], request_, SUCCESS)
    assert manager.is_quarantined
    assert "in a row of on_request_complete" in messages(caplog)[-1]


def test_quarantine_can_be_switched_off(bad, workers, request_):
    manager = manager_of(bad("bad_raising:Raising")(), limits=FaultLimits(quarantine_after=0))
    for _ in range(20):
        manager.select_single(workers, request_)
    assert not manager.is_quarantined


def test_log_shows_the_traceback_once_and_then_now_and_then(bad, workers, request_, caplog, clock):
    manager = manager_of(bad("bad_raising:Raising")(), limits=FaultLimits(quarantine_after=0), clock=clock)
    for _ in range(4):
        manager.select_single(workers, request_)
    clock.advance(11)
    manager.select_single(workers, request_)
    assert [record.exc_info is not None for record in caplog.records] == [True, False]
    assert messages(caplog)[1].endswith("(3 more since the last report)")
    assert manager.faults == {("mine", "raised"): 5}


# --- pairs ---


def test_pair_without_the_hook_is_two_choices_with_the_leg_set(prefill_workers, decode_workers, request_):
    legs = []

    class Legs:
        @hookimpl
        def select_single(self, workers, request):
            legs.append((request.leg, workers))
            return workers[0]

    manager = manager_of(Legs(), needs_pair=True)
    assert manager.select_pair(prefill_workers, decode_workers, request_) == (prefill_workers[0], decode_workers[0])
    assert legs == [(Leg.PREFILL, prefill_workers), (Leg.DECODE, decode_workers)]
    assert request_.leg is Leg.SINGLE


def test_a_decode_worker_alone_is_chosen_with_the_leg_set(prefill_workers, decode_workers, request_):
    legs = []

    class Both:
        @hookimpl
        def select_single(self, workers, request):
            legs.append((request.leg, workers))
            return workers[-1]

        @hookimpl
        def select_pair(self, prefill_workers, decode_workers):
            raise AssertionError("this is no pair")

    chosen = manager_of(Both(), needs_pair=True).select_decode(prefill_workers[0], decode_workers, request_)
    assert (chosen, legs) == (decode_workers[-1], [(Leg.DECODE, decode_workers)])
    assert request_.leg is Leg.SINGLE


def test_a_policy_that_only_chooses_pairs_is_given_the_prefill_worker_there_is(
    prefill_workers, decode_workers, request_
):
    class Joint:
        @hookimpl
        def select_pair(self, prefill_workers, decode_workers):
            self.asked = prefill_workers
            return (prefill_workers[0], decode_workers[-1]) if len(decode_workers) > 1 else None

    policy = Joint()
    manager = manager_of(policy, needs_pair=True)
    assert manager.select_decode(prefill_workers[1], decode_workers, request_) is decode_workers[-1]
    assert policy.asked == (prefill_workers[1],)
    assert manager.select_decode(prefill_workers[1], decode_workers[:1], request_) is None


def test_composed_pair_is_none_when_a_leg_finds_nobody(prefill_workers, decode_workers, request_):
    class Picky:
        @hookimpl
        def select_single(self, workers, request):
            assert request.leg is Leg.PREFILL

    manager = manager_of(Picky())
    assert manager.select_pair(prefill_workers, decode_workers, request_) is None
    assert request_.leg is Leg.SINGLE
    assert dict(manager.faults) == {}


def test_pair_is_matched_by_url_and_made_a_tuple(bad, prefill_workers, decode_workers, request_):
    policy = bad("bad_wrong_return:WrongReturn")()
    manager = manager_of(policy)
    for answer in ((prefill_workers[0], decode_workers[1]), [Worker("http://p0"), Worker("http://d1")]):
        policy.answer = answer
        prefill, decode = manager.select_pair(prefill_workers, decode_workers, request_)
        assert (prefill is prefill_workers[0], decode is decode_workers[1]) == (True, True)
    policy.answer = None
    assert manager.select_pair(prefill_workers, decode_workers, request_) is None
    assert (dict(manager.faults), manager.decision_times.count) == ({}, 3)


P0, D0, X = Worker("http://p0"), Worker("http://d0"), Worker("http://x")


@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        (
            (D0, P0),
            "wrong_role",
            "returned (http://d0, http://p0); the first comes from `prefill_workers`, the second from `decode_workers`",
        ),
        ((P0, X), "stranger", "returned http://x, which is no candidate"),
        ((X, D0), "stranger", "returned http://x, which is no candidate"),
        (P0, "wrong_type", "returned a Worker; return (prefill, decode), or None"),
        ((P0, None), "wrong_type", "returned (a Worker, a NoneType); return (prefill, decode), or None"),
        ((P0,), "wrong_type", "returned (a Worker); return (prefill, decode), or None"),
    ],
    ids=["swapped", "stranger second", "stranger first", "one worker", "half a pair", "too short"],
)
def test_unusable_pair_goes_by_the_fallback_and_is_told(
    bad, prefill_workers, decode_workers, request_, caplog, answer, kind, said
):
    policy = bad("bad_wrong_return:WrongReturn")()
    policy.answer = answer
    manager = manager_of(policy)
    pair = manager.select_pair(prefill_workers, decode_workers, request_)
    assert pair == (prefill_workers[1], decode_workers[1])
    assert request_.reason == "fallback"
    assert manager.faults == {("mine", kind): 1}
    assert messages(caplog) == [
        f"policy 'mine' (router-policy-mine 0.1.0): select_pair {said}; the least loaded worker is taken"
    ]


def test_raising_pair_is_isolated_and_quarantined(bad, prefill_workers, decode_workers, request_):
    manager = manager_of(bad("bad_raising:Raising")(), limits=FaultLimits(quarantine_after=2))
    for _ in range(3):
        pair = manager.select_pair(prefill_workers, decode_workers, request_)
        assert pair == (prefill_workers[1], decode_workers[1])
    assert manager.is_quarantined
    assert manager.faults == {("mine", "raised"): 2}


# --- telling ---


def test_every_event_reaches_policy_and_observers_with_its_arguments(workers, request_):
    pages = []
    manager = manager_of(DiaryPolicy("policy", pages), observers=[("diary", Diary("observer", pages))])
    manager.worker_added(workers[0])
    manager.first_token(workers[0], request_)
    manager.request_complete(workers[0], request_, CANCELLED)
    manager.worker_removed(workers[0])
    url = "http://w0"
    events = [
        ("added", url),
        ("first token", url, "request-1"),
        ("complete", url, False, url, "request-1", OutcomeStatus.CANCELLED),
        ("removed", url),
    ]
    assert pages == [(who, *event) for event in events for who in ("policy", "observer")]


def test_observer_that_raises_hides_nothing_from_the_others(workers, request_, caplog):
    class Raising:
        @hookimpl
        def on_request_complete(self):
            raise ValueError("boom")

    before, after, policy = Diary(), Diary(), DiaryPolicy()
    observers = [("before", before), ("raising", Raising()), ("after", after)]
    manager = manager_of(policy, observers=observers, limits=FaultLimits(quarantine_after=2))
    for _ in range(4):
        manager.request_complete(workers[0], request_, SUCCESS)
    assert [len(diary.pages) for diary in (policy, before, after)] == [4, 4, 4]
    assert manager.faults == {("raising", "raised"): 4}
    assert messages(caplog) == ["observer 'raising': on_request_complete raised ValueError: boom"]
    assert not manager.is_quarantined


def test_policy_that_raises_hides_nothing_from_observers(bad, workers, request_, caplog):
    diary = Diary()
    manager = manager_of(bad("bad_raising:Raising")(), observers=[("diary", diary)])
    manager.first_token(workers[0], request_)
    manager.request_complete(workers[0], request_, SUCCESS)
    assert [page[1] for page in diary.pages] == ["first token", "complete"]
    assert messages(caplog)[0] == (
        "policy 'mine' (router-policy-mine 0.1.0): on_first_token raised Unprintable: (its message cannot be printed)"
    )


def test_hooks_nobody_implements_are_known_beforehand():
    assert not manager_of(First()).wants_first_token
    assert manager_of(DiaryPolicy()).wants_first_token
    assert manager_of(First(), observers=[("diary", Diary())]).wants_first_token


def test_needs_are_those_of_everybody():
    class Wrapper:
        needs = frozenset({"header:x-tenant"})

    class Observer:
        def __init__(self):
            self.needs = frozenset({"telemetry"})

    class Needy(First):
        needs = frozenset({"text", "prefix"})

    manager = manager_of(Needy(), wrappers=[("w", Wrapper())], observers=[("o", Observer())])
    assert manager.needs == {"text", "prefix", "header:x-tenant", "telemetry"}


# --- wrappers ---


def test_wrappers_wrap_the_policy_the_first_one_outermost(workers, request_):
    calls = []

    class Wrapper:
        def __init__(self, name):
            self.name = name

        @hookimpl(wrapper=True)
        def select_single(self, workers):
            calls.append(f"{self.name} in")
            worker = yield
            calls.append(f"{self.name} out")
            return worker

    manager = manager_of(First(), wrappers=[("a", Wrapper("a")), ("b", Wrapper("b"))])
    assert manager.select_single(workers, request_) is workers[0]
    assert calls == ["a in", "b in", "b out", "a out"]


def test_wrapper_that_raises_is_isolated_like_the_policy(workers, request_):
    class Wrapper:
        @hookimpl(wrapper=True)
        def select_single(self):
            yield
            raise ValueError("boom")

    manager = manager_of(First(), wrappers=[("w", Wrapper())])
    assert manager.select_single(workers, request_) is workers[1]
    assert manager.faults == {("mine", "raised"): 1}


# --- making ---


def test_instance_may_have_been_built_with_any_arguments(workers, request_):
    class Built(First):
        def __init__(self, table, clock):
            self.table = table

    assert manager_of(Built({}, None)).select_single(workers, request_) is workers[0]


def test_slips_of_every_plugin_are_listed_together(bad):
    with pytest.raises(PolicyContractError) as caught:
        manager_of(bad("bad_no_select:NoSelect")(), observers=[("spy", bad("bad_observer:SelectingObserver")())])
    assert caught.value.problems == (
        "policy 'mine' (router-policy-mine 0.1.0): NoSelect implements neither select_single nor select_pair; "
        "add an @hookimpl select_single",
        "observer 'spy': SelectingObserver.select_single: an observer may not select; "
        "remove it, or offer the class as a policy",
    )


def test_needs_of_the_instance_are_checked():
    class Late(First):
        @property
        def needs(self):
            return {"text"}

    with pytest.raises(PolicyContractError, match=r"Late\.needs is a set; write a frozenset"):
        manager_of(Late())


# --- life ---


async def test_start_is_policy_wrappers_observers_and_stop_the_reverse():
    pages, made = [], []

    def make_context(name):
        made.append(Context(name))
        return made[-1]

    manager = manager_of(
        DiaryPolicy("policy", pages),
        wrappers=[("w", Diary("wrapper", pages))],
        observers=[("o1", Diary("one", pages)), ("o2", Diary("two", pages))],
    )
    await manager.start(make_context)
    assert pages == [
        ("policy", "start", "mine"),
        ("wrapper", "start", "w"),
        ("one", "start", "o1"),
        ("two", "start", "o2"),
    ]
    del pages[:]
    await manager.stop()
    await manager.stop()
    assert pages == [("two", "stop"), ("one", "stop"), ("wrapper", "stop"), ("policy", "stop")]
    assert [context.is_stopped for context in made] == [True] * 4


class Ticking:
    """A context whose timers fire when the test says so."""

    def __init__(self):
        self.ticks = []

    def call_timer(self, fn):
        fn()

    def every(self, seconds, fn):
        self.ticks.append(fn)

    def fire(self):
        for tick in self.ticks:
            self.call_timer(tick)


class BrokenUpkeep(First):
    @hookimpl
    def on_start(self, pool):
        pool.every(1, self.sweep)

    def sweep(self):
        raise SystemExit("boom")


async def test_faults_of_timers_count_as_those_of_hooks_do_and_quarantine_nobody(caplog):
    class Watching:
        @hookimpl
        def on_start(self, pool):
            pool.every(1, self.look)

        def look(self):
            raise ValueError("blind")

    contexts = {}
    manager = manager_of(BrokenUpkeep(), observers=[("seer", Watching())])
    await manager.start(lambda name: contexts.setdefault(name, Ticking()))
    for _ in range(20):
        for context in contexts.values():
            context.fire()
    assert manager.faults == {("mine", "raised"): 20, ("seer", "raised"): 20}
    assert not manager.is_quarantined
    sweep, look = caplog.records
    assert re.fullmatch(
        r"policy 'mine' .*: timer \S*BrokenUpkeep\.sweep raised SystemExit: boom; it goes on", sweep.getMessage()
    )
    assert sweep.exc_info is not None
    assert look.getMessage().startswith("observer 'seer': timer ")
    await manager.stop()


async def test_timers_are_watched_as_hooks_are(clock, caplog):
    watchdog = Watchdog(clock=clock, poll_s=3600)

    class Stuck(First):
        @hookimpl
        def on_start(self, pool):
            pool.every(1, self.sweep)

        def sweep(self):
            clock.advance(2)
            watchdog.check()

    context = Ticking()
    manager = manager_of(Stuck(), watchdog=watchdog, clock=clock)
    await manager.start(lambda name: context)
    context.fire()
    assert "has been in a hook for 2.0 s" in caplog.records[0].getMessage()
    await manager.stop()


async def test_async_start_and_stop_are_awaited():
    done = []

    class Slow(First):
        @hookimpl
        async def on_start(self):
            await asyncio.sleep(0)
            done.append("start")

        @hookimpl
        async def on_stop(self):
            await asyncio.sleep(0)
            done.append("stop")

    manager = manager_of(Slow())
    await manager.start(Context)
    await manager.stop()
    assert done == ["start", "stop"]


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("bad_life:RaisesAtStart", "on_start raised OSError: no disk"),
        ("bad_life:NeverStarts", "on_start did not end within 0 s"),
    ],
)
async def test_policy_that_cannot_start_stops_the_start(bad, target, said):
    context = Context("mine")
    observer = Diary()
    manager = manager_of(bad(target)(), observers=[("diary", observer)], limits=FaultLimits(life_timeout_s=0))
    with pytest.raises(StartupError) as caught:
        await manager.start(lambda _: context)
    assert caught.value.problems == (f"policy 'mine' (router-policy-mine 0.1.0): {said}",)
    assert context.is_stopped
    assert observer.pages == []


async def test_policy_is_stopped_again_when_a_wrapper_cannot_start():
    class Wrapper:
        @hookimpl
        def on_start(self):
            raise ValueError("boom")

    policy = DiaryPolicy()
    with pytest.raises(StartupError, match="wrapper 'w': on_start raised ValueError: boom"):
        await manager_of(policy, wrappers=[("w", Wrapper())]).start(Context)
    assert [page[1] for page in policy.pages] == ["start", "stop"]


async def test_observer_that_cannot_start_is_logged_and_counted(workers, request_, caplog):
    class Raising:
        @hookimpl
        async def on_start(self):
            raise ValueError("boom")

    after = Diary()
    manager = manager_of(First(), observers=[("raising", Raising()), ("after", after)])
    await manager.start(Context)
    assert [page[1] for page in after.pages] == ["start"]
    assert manager.faults == {("raising", "raised"): 1}
    assert messages(caplog) == [
        "observer 'raising': on_start raised ValueError: boom; it may miss what it set up there"
    ]
    await manager.stop()


@pytest.mark.parametrize(
    ("target", "kind", "said"),
    [
        ("bad_life:RaisesAtStop", "raised", "on_stop raised OSError: no disk"),
        ("bad_life:NeverStops", "timed_out", "on_stop did not end within 0 s"),
    ],
)
async def test_policy_that_cannot_stop_is_logged_and_the_stop_goes_on(bad, caplog, target, kind, said):
    contexts = []
    manager = manager_of(bad(target)(), limits=FaultLimits(life_timeout_s=0))
    await manager.start(lambda name: contexts.append(Context(name)) or contexts[-1])
    await manager.stop()
    assert manager.faults == {("mine", kind): 1}
    assert messages(caplog) == [f"policy 'mine' (router-policy-mine 0.1.0): {said}"]
    assert contexts[0].is_stopped


async def test_quarantined_policy_is_stopped_all_the_same(workers, request_):
    class Quarantined(DiaryPolicy):
        @hookimpl
        def select_single(self, workers):
            raise ValueError("boom")

    policy = Quarantined()
    manager = manager_of(policy, limits=FaultLimits(quarantine_after=1))
    await manager.start(Context)
    manager.select_single(workers, request_)
    manager.worker_added(workers[0])
    await manager.stop()
    assert [page[1] for page in policy.pages] == ["start", "stop"]
