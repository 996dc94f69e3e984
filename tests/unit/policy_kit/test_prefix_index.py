"""The index against a plain dictionary that does the same slowly, and what callers rely on, one by one."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from router_core.api import PrefixIndex, Worker, prefix_tokens
from router_core.contract.prefix import BLOCK_TOKENS, SHORT_BLOCK_TOKENS, SHORT_BLOCKS

URLS = tuple(f"http://w{number}" for number in range(4))
WORKERS = tuple(Worker(url) for url in URLS)


def prompt(*path: int, head: int = 0) -> tuple[int, ...]:
    """Return the hashes of a prompt: `head` blocks all prompts share, then one for each step of `path`."""
    chain = (*range(head), *path)
    return tuple(hash(chain[:end]) for end in range(1, len(chain) + 1))


def size_of(depth: int) -> int:
    return SHORT_BLOCK_TOKENS if depth < SHORT_BLOCKS else BLOCK_TOKENS


class Oracle:
    """One worker's cache as two dictionaries, everything counted anew each time."""

    def __init__(self, capacity):
        self.capacity = capacity
        self.pins: dict[int, int] = {}
        self.idle: dict[int, int] = {}  # block -> when it was released; in that order
        self.sizes: dict[int, int] = {}
        self.unvouched: set[int] = set()

    @property
    def tokens(self):
        return sum(self.sizes[block] for block in (*self.pins, *self.idle))

    def match(self, prefix):
        known = list(itertools.takewhile(lambda block: block in self.pins or block in self.idle, prefix))
        return sum(size_of(depth) for depth in range(len(known)))

    def pin(self, prefix):
        for depth, block in enumerate(prefix):
            self.sizes[block] = size_of(depth)
            if block not in self.pins and block not in self.idle:
                self.unvouched.add(block)
            self.idle.pop(block, None)
            self.pins[block] = self.pins.get(block, 0) + 1
        self.evict()

    def unpin(self, prefix, now, *, keeps):
        if keeps:
            self.unvouched -= set(prefix)
        for block in reversed(prefix):
            self.pins[block] -= 1
            if not self.pins[block]:
                del self.pins[block]
                if block not in self.unvouched:
                    self.idle[block] = now
                self.unvouched.discard(block)
        self.evict()

    def evict(self):
        while self.idle and self.tokens > self.capacity:
            self.idle.pop(next(iter(self.idle)))


PATHS = st.lists(st.integers(0, 1), max_size=6)
CAPACITIES = st.integers(0, 12 * BLOCK_TOKENS)


class IndexMachine(RuleBasedStateMachine):
    placements = Bundle("placements")

    @initialize(max_blocks=st.sampled_from([1, 8, 20, 1000]))
    def start(self, max_blocks):
        self.max_blocks = max_blocks
        self.index = PrefixIndex(10 * BLOCK_TOKENS, max_blocks=max_blocks)
        self.oracles = {url: Oracle(10 * BLOCK_TOKENS) for url in URLS}
        self.clock = 0

    @rule(target=placements, url=st.sampled_from(URLS), path=PATHS, head=st.sampled_from([0, 5, 9]))
    def place(self, url, path, head):
        prefix, oracle = prompt(*path, head=head), self.oracles[url]
        matched = oracle.match(prefix)
        oracle.pin(prefix)
        self.keep_budget()
        placement = self.index.place(url, prefix)
        assert placement.matched_tokens == matched
        return url, prefix, placement

    @rule(placed=consumes(placements), keeps=st.booleans())
    def end(self, placed, keeps):
        url, prefix, placement = placed
        self.clock += 1
        self.oracles[url].unpin(prefix, self.clock, keeps=keeps)
        self.keep_budget()
        for _ in range(2):  # the second call does nothing
            (self.index.release if keeps else self.index.withdraw)(placement)

    @rule(url=st.sampled_from(URLS), capacity=CAPACITIES)
    def resize(self, url, capacity):
        self.oracles[url].capacity = capacity
        self.oracles[url].evict()
        self.index.set_capacity(url, capacity)
        assert self.index.capacity_tokens(url) == capacity

    @rule(url=st.sampled_from(URLS))
    def flap(self, url):
        self.index.remove_worker(url)
        self.index.add_worker(url)

    def keep_budget(self):
        """Forget, over all workers, what was released first; of one release the last block of the prompt."""
        while sum(len(oracle.pins) + len(oracle.idle) for oracle in self.oracles.values()) > self.max_blocks:
            holders = [oracle for oracle in self.oracles.values() if oracle.idle]
            if not holders:
                return
            oldest = min(holders, key=lambda oracle: next(iter(oracle.idle.values())))
            oldest.idle.pop(next(iter(oldest.idle)))

    @invariant()
    def agrees(self):
        for path in ((), (0,), (1, 0), (0, 1, 1, 0), (1, 1, 1, 1, 1, 1), (0, 0, 0, 0, 0, 0)):
            for head in (0, 5, 9):
                prefix = prompt(*path, head=head)
                expected = [self.oracles[url].match(prefix) for url in URLS]
                assert self.index.match(prefix, WORKERS) == expected
                assert self.index.match(prefix, list(reversed(WORKERS))) == expected[::-1]
        for url, oracle in self.oracles.items():
            assert self.index.tokens(url) == oracle.tokens
            assert self.index.pinned_tokens(url) == sum(oracle.sizes[block] for block in oracle.pins)
        assert len(self.index) == sum(len(oracle.pins) + len(oracle.idle) for oracle in self.oracles.values())


IndexMachine.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
TestIndexDoesWhatAPlainDictionaryDoes = IndexMachine.TestCase


def run(index, url, prefix):
    index.release(index.place(url, prefix))


def test_a_prompt_is_known_where_it_was_sent_and_nowhere_else():
    index = PrefixIndex()
    run(index, URLS[1], prompt(1, 2, 3))
    assert index.match(prompt(1, 2, 4), WORKERS) == [0, prefix_tokens(2), 0, 0]


def test_a_prompt_without_a_full_block_matches_nothing():
    index = PrefixIndex()
    run(index, URLS[0], ())
    assert index.match((), WORKERS) == [0, 0, 0, 0]


def test_an_unknown_worker_has_nothing():
    assert PrefixIndex().match(prompt(1), (Worker("http://stranger"),)) == [0]


def test_what_a_running_request_needs_is_never_forgotten():
    index = PrefixIndex(0)
    placement = index.place(URLS[0], prompt(1, 2))
    assert index.match(prompt(1, 2), WORKERS[:1]) == [prefix_tokens(2)]
    index.release(placement)
    assert index.match(prompt(1, 2), WORKERS[:1]) == [0]


def test_a_request_that_was_never_computed_teaches_nothing():
    index = PrefixIndex()
    run(index, URLS[0], prompt(1))
    index.withdraw(index.place(URLS[0], prompt(1, 2, 3)))
    assert index.match(prompt(1, 2, 3), WORKERS[:1]) == [prefix_tokens(1)]


def test_a_withdrawn_prompt_stays_if_another_computed_it_meanwhile():
    index = PrefixIndex()
    failed, served = index.place(URLS[0], prompt(1, 2)), index.place(URLS[0], prompt(1, 2, 3))
    index.release(served)
    index.withdraw(failed)
    assert index.match(prompt(1, 2, 3), WORKERS[:1]) == [prefix_tokens(3)]


def test_a_computed_prompt_stays_even_if_its_request_is_withdrawn():
    index = PrefixIndex()
    placement = index.place(URLS[0], prompt(1, 2))
    index.confirm(placement)
    index.withdraw(placement)
    assert index.match(prompt(1, 2), WORKERS[:1]) == [prefix_tokens(2)]


def test_a_placement_tells_what_was_computed_from_what_is_on_its_way():
    index = PrefixIndex()
    run(index, URLS[0], prompt(1))
    index.place(URLS[0], prompt(1, 2))
    placement = index.place(URLS[0], prompt(1, 2, 3))
    assert (placement.matched_tokens, placement.computed_tokens) == (prefix_tokens(2), prefix_tokens(1))


def test_a_departed_worker_goes_little_by_little_and_leaves_nothing_behind():
    index = PrefixIndex()
    run(index, URLS[0], prompt(*range(100)))
    running = index.place(URLS[0], prompt(*range(50)))
    index.remove_worker(URLS[0])
    assert index.match(prompt(0), WORKERS) == [0, 0, 0, 0]
    assert index.sweep(30)
    assert len(index) == 70
    assert not index.sweep(1000)
    assert len(index) == 50
    index.release(running)
    assert not index.sweep(1000)
    assert len(index) == 0


def test_placements_sweep_what_departed_workers_left():
    index = PrefixIndex()
    run(index, URLS[0], prompt(*range(1000)))
    index.remove_worker(URLS[0])
    for _ in range(16):
        run(index, URLS[1], prompt(7))
    assert len(index) == 1


def test_a_worker_that_returns_has_what_was_not_dropped_meanwhile():
    index = PrefixIndex()
    run(index, URLS[0], prompt(*range(10)))
    index.remove_worker(URLS[0])
    index.sweep(4)
    index.add_worker(URLS[0])
    assert index.match(prompt(*range(10)), WORKERS[:1]) == [prefix_tokens(6)]


def test_a_forgotten_worker_begins_anew_while_its_requests_run_on():
    index = PrefixIndex()
    index.set_capacity(URLS[0], 10_000)
    running = index.place(URLS[0], prompt(1, 2))
    index.forget(URLS[0])
    assert index.match(prompt(1, 2), WORKERS[:1]) == [0]
    assert index.capacity_tokens(URLS[0]) == 10_000
    run(index, URLS[0], prompt(1))
    index.release(running)
    assert index.match(prompt(1, 2), WORKERS[:1]) == [prefix_tokens(1)]


def test_a_newcomer_never_inherits_from_a_departed_worker():
    index = PrefixIndex()
    for number in range(50):
        url = f"http://short-lived-{number}"
        run(index, url, prompt(number, 1))
        index.remove_worker(url)
        index.add_worker(f"http://new-{number}")
        assert index.match(prompt(number, 1), (Worker(f"http://new-{number}"),)) == [0]


def test_departed_workers_make_room_first():
    index = PrefixIndex(max_blocks=4)
    run(index, URLS[0], prompt(1, 1))
    run(index, URLS[1], prompt(2, 2))
    index.remove_worker(URLS[1])
    index.place(URLS[0], prompt(3, 3))
    assert index.match(prompt(1, 1), WORKERS[:1]) == [prefix_tokens(2)]


def test_many_workers_are_told_apart():
    index = PrefixIndex()
    workers = tuple(Worker(f"http://many-{number}") for number in range(200))
    for depth, worker in enumerate(workers):
        run(index, worker.url, prompt(*range(depth)))
    assert index.match(prompt(*range(200)), workers) == [prefix_tokens(depth) for depth in range(200)]


@pytest.mark.parametrize("arguments", [{"capacity_tokens": -1}, {"max_blocks": 0}])
def test_nonsense_is_refused(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        PrefixIndex(**arguments)
    with pytest.raises(ValueError, match="capacity_tokens"):
        PrefixIndex().set_capacity(URLS[0], -1)
