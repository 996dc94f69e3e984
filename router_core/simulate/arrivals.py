"""When what starts: the trace's starting times at another rate, shaken a little for every seed but the first."""

from __future__ import annotations

import random

from router_core.simulate.scenario import Scenario


def starting_times(scenario: Scenario, seed: int) -> list[float]:
    """Return the start of each of the trace's sessions, in order of the sessions; the first is near 0.

    The pattern of the arrivals stays: time is stretched, not drawn anew.

    Args:
        scenario: What is replayed.
        seed: 0 for the times as they are; else each is moved by up to `scenario.jitter` mean gaps either way.
    """
    trace = scenario.trace
    sessions = trace.sessions
    first_s = sessions[0][0].at_s
    recorded, wanted = trace.start_rate, scenario.start_rate
    # All at once, and a rate is wished for: evenly spaced.
    if not recorded:
        starts = [index / wanted if wanted else 0.0 for index in range(len(sessions))]
    else:
        stretch = recorded / wanted
        starts = [(session[0].at_s - first_s) * stretch for session in sessions]
    if seed and wanted:
        shake = random.Random(f"arrivals/{seed}").uniform  # noqa: S311  # repeatable, not secret
        reach_s = scenario.jitter / wanted
        starts = [max(0.0, start + shake(-reach_s, reach_s)) for start in starts]
    return starts
