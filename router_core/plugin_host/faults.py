"""What a plugin does wrong while it runs: counted by kind, logged without flooding the log."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

_QUIET_S = 10.0
"""Seconds between two log entries on the same fault of the same plugin."""


class FaultKind(StrEnum):
    """What went wrong.

    `stranger` is a worker that is no candidate, `wrong_role` a pair with its legs swapped, `wrong_type` anything that
    is no worker (or pair), `over_budget` a valid answer that came late, `timed_out` an `on_start` or `on_stop` without
    an end.
    """

    RAISED = "raised"
    STRANGER = "stranger"
    WRONG_ROLE = "wrong_role"
    WRONG_TYPE = "wrong_type"
    OVER_BUDGET = "over_budget"
    TIMED_OUT = "timed_out"


@dataclass(frozen=True, slots=True)
class FaultLimits:
    """How much is borne.

    Attributes:
        quarantine_after: Faults (or late answers) of one hook in a row until a policy is quarantined; 0 means never.
        budget_s: Seconds a selection may take before it counts as over budget.
        life_timeout_s: Seconds `on_start` and `on_stop` may take.
    """

    quarantine_after: int = 5
    budget_s: float = 0.05
    life_timeout_s: float = 10.0


class FaultLog:
    """Counts the faults of a pool's plugins and reports them: with traceback once, then now and then."""

    def __init__(self, logger: logging.Logger, clock: Callable[[], float]) -> None:
        self._logger = logger
        self._clock = clock
        self._counts: dict[tuple[str, str], int] = {}
        self._reported_at: dict[tuple[str, str, str], float] = {}
        self._unreported: dict[tuple[str, str, str], int] = {}
        self.counts: Mapping[tuple[str, str], int] = MappingProxyType(self._counts)

    def record(
        self, plugin: str, kind: FaultKind, hook: str, sentence: str, *, error: BaseException | None = None
    ) -> None:
        """Count one fault, and log it unless the same was logged a moment ago.

        Args:
            plugin: The plugin's name, the first key of `counts`.
            kind: What went wrong, the second key.
            hook: Where, to tell reports apart.
            sentence: The log entry.
            error: Whose traceback to show the first time.
        """
        self._counts[plugin, kind.value] = self._counts.get((plugin, kind.value), 0) + 1
        report = (plugin, kind.value, hook)
        now = self._clock()
        last = self._reported_at.get(report)
        if last is not None and now - last < _QUIET_S:
            self._unreported[report] = self._unreported.get(report, 0) + 1
            return
        self._reported_at[report] = now
        skipped = self._unreported.pop(report, 0)
        if skipped:
            sentence = f"{sentence} ({skipped} more since the last report)"
        level = logging.WARNING if kind is FaultKind.OVER_BUDGET else logging.ERROR
        self._logger.log(level, "%s", sentence, exc_info=error if last is None else None)


def describe(error: BaseException) -> str:
    """Return `Type: message` of an error raised by foreign code, whatever its `__str__` does."""
    try:
        message = str(error)
    except Exception:  # noqa: BLE001  # foreign code: even printing its error may fail
        message = "(its message cannot be printed)"
    return f"{type(error).__name__}: {message}" if message else type(error).__name__
