"""Where workers come from: what a membership source tells the router. The group is `router_core.membership`.

A source is a class with a nested `Config(PolicyConfig)`, built with the validated config. It tells the router the whole
list each time it changes; the router works out who joined and who left, so a source cannot leave ghosts behind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

from router_core.contract.worker import WorkerRole

_NO_LABELS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """One worker as a source knows it.

    Attributes:
        url: Its base URL, `http://HOST:PORT`.
        role: Regular, prefill or decode.
        models: Models it is known to serve; empty to ask the engine.
        labels: Free key-value pairs, passed on to policies.
        bootstrap_port: The port of an SGLang prefill worker's bootstrap server, None when it has none.
        api_key: The key it wants from the router; None sends it the router's `worker_api_key`, if there is one.
    """

    url: str
    role: WorkerRole = WorkerRole.REGULAR
    models: frozenset[str] = frozenset()
    labels: Mapping[str, str] = field(default_factory=lambda: _NO_LABELS)
    bootstrap_port: int | None = None
    api_key: str | None = field(default=None, repr=False)


Report = Callable[[tuple[WorkerSpec, ...]], None]
"""Takes the whole present list. Raises nothing; may be called as often as one likes: the very list that was reported
last is a sign of life and costs nothing."""


class MembershipSource(Protocol):
    """Finds workers, from `run` until it is cancelled.

    A source that reports again and again even if nothing changes may say so by an attribute `max_silence_s`: after so
    many seconds without a report it counts as blind, which shows in metrics and in `/health?verbose`.
    """

    async def run(self, report: Report) -> None:
        """Report the list once it is known and whenever it changes; never returns of itself.

        What goes wrong for a while (an API that cannot be reached, a file half written) is logged and tried again; the
        last list stays good meanwhile.

        Args:
            report: Called in the event loop with the whole list.

        Raises:
            StartupError: Before the first report, if it can never work: a wrong option, a missing library.
        """
