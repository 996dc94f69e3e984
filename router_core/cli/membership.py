"""The sources of workers at work: what they find is registered, and how they are is seen."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Sequence

from router_core.cli.administration import Administration
from router_core.fleet.membership.roster import Roster
from router_core.fleet.membership.supervisor import NamedSource, SourceSupervisor
from router_core.fleet.registry import WorkerRegistry
from router_core.observability.registry import MetricsRegistry
from router_core.observability.samplers import membership_sampler
from router_core.observability.signals import SignalBoard, membership_check


async def start_sources(
    stack: contextlib.AsyncExitStack,
    sources: Sequence[NamedSource],
    registrations: WorkerRegistry,
    administration: Administration,
    *,
    metrics: MetricsRegistry,
    signals: SignalBoard,
) -> None:
    """Have sources find workers from now on.

    Args:
        stack: Stops them.
        sources: Which.
        registrations: Where workers are taken in and leave.
        administration: Knows which workers are refused.
        metrics: Where the sources' figures go.
        signals: Where it is seen whether they are alive.
    """
    supervisor = SourceSupervisor(
        sources,
        Roster(
            registrations,
            keys=registrations.keys,
            is_own_address=administration.is_own_address,
            why_unused=administration.why_unused,
        ),
        random=random.Random(),  # noqa: S311  # spreads restarts in time
    )
    stack.push_async_callback(supervisor.stop)
    await supervisor.start()
    signals.add(membership_check(supervisor.states))
    metrics.add_sampler(membership_sampler(supervisor.states))
