"""Several policies, each with several seeds, on the same scenario; in one process or in several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from router_core.simulate.contender import Contender
from router_core.simulate.processes import run_apart
from router_core.simulate.record import RunRecord
from router_core.simulate.replay import Replay
from router_core.simulate.scenario import Scenario
from router_core.simulate.summary import Slo, Summary, summarise

ShareDone = Callable[[float], None]
"""Told the share of all work that is done, 0 to 1."""


@dataclass(frozen=True)
class Comparison:
    """What came out.

    Attributes:
        scenario: What was replayed.
        slo: What counted as good.
        warm_up: Share of the arrivals left out.
        records: Every run of each policy, in the order the policies were given.
        summaries: The figures of each policy, in the same order.
    """

    scenario: Scenario
    slo: Slo
    warm_up: float
    records: tuple[tuple[RunRecord, ...], ...]
    summaries: tuple[Summary, ...]

    def __getitem__(self, label: str) -> Summary:
        for summary in self.summaries:
            if summary.policy == label:
                return summary
        raise KeyError(label)


def simulate(scenario: Scenario, policy: Contender | str, *, seed: int = 0) -> RunRecord:
    """Replay a scenario once and return everything that happened.

    Args:
        scenario: What is replayed.
        policy: A contender, or what `Contender.parse` reads, such as `cache_aware:{cache_threshold: 0.5}`.
        seed: Same seed, same run.

    Raises:
        StartupError: The policy cannot be had, or cannot start.
    """
    return Replay(scenario, _contender(policy), seed=seed).run()


def compare(
    scenario: Scenario,
    policies: Sequence[Contender | str],
    *,
    seeds: int = 3,
    slo: Slo | None = None,
    warm_up: float = 0.1,
    jobs: int = 1,
    progress: ShareDone | None = None,
) -> Comparison:
    """Replay a scenario with each policy, once for each seed from 0 on.

    Args:
        scenario: What is replayed.
        policies: Who takes part.
        seeds: How many runs each has.
        slo: What counts as good.
        warm_up: Share of the arrivals that is left out at the beginning.
        jobs: Processes to use; with more than one, policies must be named, not made.
        progress: Told how far it is.

    Raises:
        StartupError: A policy cannot be had, or cannot start.
        RunFailedError: One of several processes died, or a run in it raised.
    """
    slo = Slo() if slo is None else slo
    contenders = [_contender(policy) for policy in policies]
    runs = [(contender, seed) for contender in contenders for seed in range(seeds)]
    if jobs > 1 and len(runs) > 1:
        flat = run_apart(scenario, runs, jobs=jobs, progress=progress)
    else:
        flat = _run_here(scenario, runs, progress)
    records = tuple(tuple(flat[start : start + seeds]) for start in range(0, len(flat), seeds))
    summaries = tuple(summarise(each, slo=slo, warm_up=warm_up) for each in records)
    return Comparison(scenario, slo, warm_up, records, summaries)


def _contender(policy: Contender | str) -> Contender:
    return Contender.parse(policy) if isinstance(policy, str) else policy


def _run_here(scenario: Scenario, runs: Sequence[tuple[Contender, int]], progress: ShareDone | None) -> list[RunRecord]:
    records = []
    for index, (contender, seed) in enumerate(runs):

        def told(done: int, total: int, index: int = index) -> None:
            if progress is not None:
                progress((index + done / total) / len(runs))

        records.append(Replay(scenario, contender, seed=seed, progress=told).run())
    return records
