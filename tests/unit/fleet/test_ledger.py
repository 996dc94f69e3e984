"""The ledger: load is the truth, whatever order things end in."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from router_core.api import LiteralPrompt, RoutingRequest, Worker, least_loaded
from router_core.fleet.ledger import Ledger


def _request(tokens: int = 10) -> RoutingRequest:
    return RoutingRequest("r", LiteralPrompt(input_tokens=tokens))


def _figures(worker: Worker) -> tuple[int, int, int, int]:
    return worker.load, worker.pending_prompt_tokens, worker.decode_tokens, worker.requests_processed


def test_a_reservation_is_seen_by_the_next_selection() -> None:
    ledger, workers = Ledger(), tuple(Worker(f"http://{name}") for name in "abcd")

    chosen = [ledger.reserve(least_loaded(workers), _request()).worker.url for _ in range(100)]

    assert {url: chosen.count(url) for url in chosen} == {f"http://{name}": 25 for name in "abcd"}


def test_prompt_tokens_move_from_pending_to_decoding_at_the_first_token() -> None:
    worker = Worker("http://a")
    lease = Ledger().reserve(worker, _request(tokens=7))
    assert _figures(worker) == (1, 7, 0, 0)

    lease.first_token()
    lease.first_token()
    assert _figures(worker) == (1, 0, 7, 0)

    assert lease.release()
    assert _figures(worker) == (0, 0, 0, 1)


def test_a_second_release_changes_nothing() -> None:
    worker = Worker("http://a")
    lease = Ledger().reserve(worker, _request())

    assert [lease.release(), lease.release()] == [True, False]
    lease.first_token()

    assert _figures(worker) == (0, 0, 0, 1)


def test_a_lease_in_a_with_block_is_released_by_an_exception() -> None:
    worker = Worker("http://a")
    try:
        with Ledger().reserve(worker, _request()):
            raise RuntimeError
    except RuntimeError:
        pass
    assert worker.load == 0


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1000), st.permutations(["first", "release", "release"]))))
def test_load_returns_to_zero_after_any_interleaving(events: list[tuple[int, int, list[str]]]) -> None:
    ledger, workers = Ledger(), [Worker(f"http://{i}") for i in range(3)]
    leases = [(ledger.reserve(workers[index], _request(tokens)), steps) for index, tokens, steps in events]
    for step in range(3):
        for lease, steps in leases:
            lease.first_token() if steps[step] == "first" else lease.release()
            assert min(*(f for w in workers for f in _figures(w)), 0) == 0
    assert all(_figures(worker)[:3] == (0, 0, 0) for worker in workers)
    assert sum(worker.requests_processed for worker in workers) == len(events)
