from __future__ import annotations

from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_core.contract.membership import WorkerSpec
from router_core.contract.worker import Worker, WorkerRole, assign
from router_core.fleet.membership.roster import Roster
from router_core.fleet.pool import WorkerPool

A, B, C = (f"http://{name}:8000" for name in "abc")


class History:
    """A pool and who joined and left it, in order."""

    def __init__(self) -> None:
        self.pool = WorkerPool()
        self.events: list[str] = []
        self.pool.subscribe(
            lambda worker: self.events.append(f"+{worker.url}"), lambda worker: self.events.append(f"-{worker.url}")
        )
        self.roster = Roster(self.pool)

    @property
    def urls(self) -> list[str]:
        return [worker.url for worker in self.pool.workers]


def specs(*urls: str) -> tuple[WorkerSpec, ...]:
    return tuple(WorkerSpec(url) for url in urls)


def test_listed_workers_join_unhealthy():
    history = History()
    labels = MappingProxyType({"zone": "a"})
    spec = WorkerSpec(A, WorkerRole.PREFILL, frozenset({"m"}), labels, bootstrap_port=8998)
    history.roster.report("file")((spec,))
    worker = history.pool.get(A)
    assert worker is not None
    assert not worker.is_healthy
    assert (worker.role, worker.models, worker.base_url) == (WorkerRole.PREFILL, {"m"}, A)
    assert dict(worker.labels) == {"zone": "a", "bootstrap_port": "8998"}


def test_only_differences_are_carried_out_and_leaves_come_first():
    history = History()
    report = history.roster.report("file")
    report(specs(A, B))
    kept = history.pool.get(B)
    report(specs(C, B))
    report(specs(B, C))
    assert history.events == [f"+{A}", f"+{B}", f"-{A}", f"+{C}"]
    assert history.pool.get(B) is kept


@pytest.mark.parametrize(
    "changed",
    [
        WorkerSpec(A, role=WorkerRole.DECODE),
        WorkerSpec(A, models=frozenset({"m"})),
        WorkerSpec(A, labels={"zone": "a"}),
        WorkerSpec(A, bootstrap_port=1),
    ],
)
def test_a_worker_described_in_another_way_leaves_and_joins(changed: WorkerSpec):
    history = History()
    report = history.roster.report("file")
    report(specs(A))
    history.pool.set_health(history.pool.get(A), is_healthy=True)
    report((changed,))
    report((changed,))
    assert history.events == [f"+{A}", f"-{A}", f"+{A}"]
    assert not history.pool.get(A).is_healthy


def test_a_worker_that_returns_with_requests_running_keeps_its_load():
    history = History()
    report = history.roster.report("file")
    report(specs(A))
    assign(history.pool.get(A), load=1)
    report(())
    report(specs(A))
    assert history.pool.get(A).load == 1
    report(())  # the pool gave the old worker object back; it is still the one that was listed
    assert history.urls == []


def test_a_url_in_two_sources_is_one_worker_until_both_have_dropped_it():
    history = History()
    first, second = history.roster.report("file"), history.roster.report("kubernetes")
    first(specs(A))
    second(specs(A, B))
    first(())
    assert history.events == [f"+{A}", f"+{B}"]
    second(specs(B))
    assert history.events == [f"+{A}", f"+{B}", f"-{A}"]


def test_the_source_that_listed_a_url_first_describes_it():
    history = History()
    first, second = history.roster.report("file"), history.roster.report("kubernetes")
    second(specs(A))
    first((WorkerSpec(A, role=WorkerRole.DECODE),))
    assert history.pool.get(A).role is WorkerRole.REGULAR
    second(())
    assert history.pool.get(A).role is WorkerRole.DECODE
    second(specs(A))
    assert history.pool.get(A).role is WorkerRole.DECODE


def test_an_administrators_worker_is_not_removed_by_a_source():
    history = History()
    by_hand = history.pool.add(Worker(A))
    report = history.roster.report("file")
    report(specs(A, B))
    report(())
    assert history.pool.workers == (by_hand,)


def test_a_worker_an_administrator_removed_stays_away_until_the_source_dropped_it():
    history = History()
    report = history.roster.report("file")
    report(specs(A))
    history.pool.remove(A)
    report(specs(A))
    report((WorkerSpec(A, labels={"touched": "yes"}),))
    assert history.urls == []
    report(())
    report(specs(A))
    assert history.urls == [A]


def test_a_worker_an_administrator_put_in_the_place_of_a_listed_one_stays():
    history = History()
    report = history.roster.report("file")
    report(specs(A))
    history.pool.remove(A)
    by_hand = history.pool.add(Worker(A))
    report((WorkerSpec(A, role=WorkerRole.DECODE),))
    report(())
    assert history.pool.workers == (by_hand,)


def test_invalid_urls_and_duplicates_are_skipped_and_logged_once(caplog: pytest.LogCaptureFixture):
    history = History()
    report = history.roster.report("file")
    for _ in range(3):
        report(specs("a:8000", "http://u:secret@a:1", A, "HTTP://A:8000/", B))
    assert history.urls == [A, B]
    assert len([record for record in caplog.records if record.levelname == "WARNING"]) == 3
    assert "secret" not in caplog.text


_URLS = st.lists(st.sampled_from([A, B, C]), max_size=4)
_ROLES = st.sampled_from([WorkerRole.REGULAR, WorkerRole.DECODE])


@given(st.lists(st.tuples(st.sampled_from(["one", "two"]), _URLS, _ROLES), max_size=12))
def test_the_pool_holds_what_the_sources_list_now(reports: list[tuple[str, list[str], WorkerRole]]):
    history = History()
    by_hand = history.pool.add(Worker("http://by-hand:1"))
    latest: dict[str, set[str]] = {}
    roles: dict[tuple[str, str], WorkerRole] = {}
    for source, urls, role in reports:
        history.roster.report(source)(tuple(WorkerSpec(url, role=role) for url in urls))
        latest[source] = set(urls)
        roles |= {(source, url): role for url in urls}
        listed = set().union(*latest.values())
        assert set(history.urls) == listed | {by_hand.url}
        for url in listed:
            assert history.pool.get(url).role in {roles[name, url] for name in latest if url in latest[name]}


def test_the_router_itself_is_never_its_own_worker(caplog):
    pool = WorkerPool()
    Roster(pool, is_own_address=lambda url: url == A).report("file")(specs(A, B))
    assert [worker.url for worker in pool.workers] == [B]
    assert f"file: worker {A} is skipped: it is this router itself" in caplog.text
