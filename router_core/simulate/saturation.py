"""How much of a trace a fleet can take: the yardstick behind loads given as a share.

Open loop: all requests are there at once, and the engines work them off with one pooled queue and cache; saturation is
the rate at which they do, the first and last tenth left out. Closed loop: sessions wait for their answers, so it is
the highest rate of session starts at which the pooled fleet still answers as quickly as when it is calm.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import orjson

from router_core.contract.errors import StartupError
from router_core.simulate.contender import Contender
from router_core.simulate.fleet_plan import FleetPlan
from router_core.simulate.record import RunRecord
from router_core.simulate.replay import Replay
from router_core.simulate.scenario import Scenario
from router_core.simulate.summary import percentile
from router_core.simulate.trace import Trace

_POOLED = Contender("oracle_pooled")
_AT_ONCE = 1e6
_SLOWER = 3.0
"""A closed loop is past saturation when its p90 time to first token is this many times that of a calm fleet."""
_CALM = 0.25
_PRECISION = 0.03
_STEADY = 1.5
"""Sessions must start over this many times as long as one of them takes, else most of them run at once."""


def saturation_rate(scenario: Scenario, *, progress: Callable[[str], None] | None = None) -> float:
    """Return the starts per second (in a closed loop, of sessions) that saturate a fleet; takes up to ten runs.

    Args:
        scenario: Trace, fleet and think time; its rate does not matter. Failures are left out.
        progress: Told what is tried.

    Raises:
        StartupError: No request of the trace fits into an engine.
    """
    scenario = replace(scenario, fleet=replace(scenario.fleet, failures=()), jitter=0.0, routers=1)
    trace = scenario.trace
    if not trace.is_closed_loop:
        return _first_token_rate(_run(scenario, _AT_ONCE, progress)) * len(trace.sessions) / len(trace.requests)
    rate = _closed_loop_rate(scenario, progress)
    if rate is not None:
        return rate
    # Too few sessions for a fleet of this size: a smaller one tells as much.
    engines = scenario.fleet.engines
    if len(engines) == 1 or scenario.fleet.has_pairs:
        return _first_token_rate(_run(scenario, _AT_ONCE, progress)) * len(trace.sessions) / len(trace.requests)
    half = replace(scenario, fleet=FleetPlan(engines[::2]))
    return saturation_rate(half, progress=progress) * len(engines) / len(engines[::2])


def cached_saturation_rate(scenario: Scenario, folder: Path, *, progress: Callable[[str], None] | None = None) -> float:
    """Return the same, remembered in a folder: for a trace and a fleet it is measured once.

    Args:
        scenario: Trace, fleet and think time.
        folder: Where to remember it; made when it is not there. One that cannot be written to is done without.
        progress: Told what is tried.
    """
    path = folder / f"saturation-{_key(scenario)}.json"
    try:
        return float(orjson.loads(path.read_bytes())["rate"])
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        pass
    rate = saturation_rate(scenario, progress=progress)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_bytes(orjson.dumps({"rate": rate, "trace": scenario.trace.name}))
    except OSError:
        pass
    return rate


def _closed_loop_rate(scenario: Scenario, progress: Callable[[str], None] | None) -> float | None:
    """Search the highest rate at which answers come as quickly as in calm; None if the trace is too short to tell."""
    sessions = len(scenario.trace.sessions)
    p90s: dict[float, float] = {}

    def measured(rate: float) -> RunRecord:
        record = _run(scenario, rate, progress)
        p90s[rate] = _p90(record)
        return record

    def is_slow(rate: float) -> bool:
        if rate not in p90s:
            measured(rate)
        return p90s[rate] > _SLOWER * calm_s

    # A rate that is calm for sure, by the share of time in which the engines are busy.
    rate = scenario.trace.start_rate or 1.0
    record = measured(rate)
    while _busy_share(record) > _CALM:
        rate /= 2
        record = measured(rate)
    calm_s = p90s[rate]
    steadily = sessions / (_STEADY * _session_s(scenario, record))
    low = high = rate
    while not is_slow(high):
        low, high = high, high * 2
        if high > steadily:
            return None
    while high / low > 1 + _PRECISION:
        middle = (low * high) ** 0.5
        low, high = (low, middle) if is_slow(middle) else (middle, high)
    return low


def _run(scenario: Scenario, rate: float, progress: Callable[[str], None] | None) -> RunRecord:
    if progress is not None:
        progress("all at once" if rate == _AT_ONCE else f"{rate:.4g} starts/s")
    record = Replay(replace(scenario, rate=rate), _POOLED).run()
    if all(request.failure is not None for request in record.requests):
        raise StartupError(["the fleet: no request of the trace fits into an engine's KV cache; give it more tokens"])
    return record


def _first_token_rate(record: RunRecord) -> float:
    times = sorted(request.first_token_s for request in record.requests if request.failure is None)
    first, last = len(times) // 10, len(times) * 9 // 10
    span_s = times[min(last, len(times) - 1)] - times[first]
    return (last - first) / span_s if span_s > 0 else len(times) / max(record.ended_s, 1e-9)


def _p90(record: RunRecord) -> float:
    return percentile(sorted(request.ttft_s for request in record.requests if request.failure is None), 0.9)


def _session_s(scenario: Scenario, record: RunRecord) -> float:
    """Return how long a session takes on average, with its pauses."""
    cap_s = float("inf") if scenario.think_cap_s is None else scenario.think_cap_s
    sessions = scenario.trace.sessions
    pauses_s = sum(min(turn.think_s, cap_s) for session in sessions for turn in session[1:])
    return (sum(request.duration_s for request in record.requests) + pauses_s) / len(sessions)


def _busy_share(record: RunRecord) -> float:
    return sum(record.busy_s) / (record.ended_s * record.workers) if record.ended_s else 0.0


def _key(scenario: Scenario) -> str:
    digest = hashlib.blake2b(digest_size=12)
    digest.update(repr((scenario.fleet.engines, scenario.fleet.transfer_s, scenario.fleet.transfer_token_s)).encode())
    digest.update(repr((scenario.think_cap_s, _SLOWER, _CALM, _PRECISION)).encode())
    digest.update(_content(scenario.trace))
    return digest.hexdigest()


def _content(trace: Trace) -> bytes:
    digest = hashlib.blake2b(repr((trace.block_tokens, trace.is_closed_loop)).encode())
    for request in trace.requests:
        digest.update(repr((request.at_s, request.prompt_tokens, request.output_tokens, request.think_s)).encode())
        digest.update(repr((request.session, request.blocks)).encode())
    return digest.digest()
