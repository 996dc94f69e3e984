"""How one policy behaves while it runs: its strikes in a row, and the quarantine they end in."""

from __future__ import annotations

import logging

from router_core.plugin_host.answers import Misfit
from router_core.plugin_host.faults import FaultKind, FaultLimits, FaultLog, describe

_LOGGER = logging.getLogger(__name__)


class Conduct:
    """Keeps the score of one policy. A hook's strikes end with its next call that goes well.

    Attributes:
        is_quarantined: Whether the policy is cut off; stays so until it is replaced or the router restarts.
        strikes: Faults or late answers in a row by hook; holds no zeros, so that an empty one costs nothing to test.
    """

    def __init__(self, name: str, label: str, *, limits: FaultLimits, log: FaultLog, refuses: bool) -> None:
        """Begin with a clean record.

        Args:
            name: The policy's name, for the counts.
            label: What to call it in the log.
            limits: How much is borne.
            log: Where faults are counted.
            refuses: Whether a request the policy cannot place is refused, not given to the least loaded worker.
        """
        self.is_quarantined = False
        self.strikes: dict[str, int] = {}
        self._name = name
        self._label = label
        self._limits = limits
        self._log = log
        self._refuses = refuses

    def raised(self, hook: str, error: BaseException) -> None:
        """Note that a hook raised."""
        remedy = f"; {self._remedy}" if hook.startswith("select") else ""
        sentence = f"{self._label}: {hook} raised {describe(error)}{remedy}"
        self._log.record(self._name, FaultKind.RAISED, hook, sentence, error=error)
        self._strike(hook, "faults")

    def misfit(self, hook: str, misfit: Misfit) -> None:
        """Note that a select hook gave an answer that cannot be used."""
        sentence = f"{self._label}: {hook} {misfit.sentence}; {self._remedy}"
        self._log.record(self._name, misfit.kind, hook, sentence)
        self._strike(hook, "faults")

    def answered(self, hook: str, took: float) -> None:
        """Note that a select hook gave a valid answer, and whether it came late."""
        budget_s = self._limits.budget_s
        if took <= budget_s:
            self.strikes.pop(hook, None)
            return
        sentence = f"{self._label}: {hook} took {took * 1e3:.1f} ms, over its budget of {budget_s * 1e3:g} ms"
        self._log.record(self._name, FaultKind.OVER_BUDGET, hook, sentence)
        self._strike(hook, "late answers")

    def _strike(self, hook: str, what: str) -> None:
        strikes = self.strikes[hook] = self.strikes.get(hook, 0) + 1
        if strikes != self._limits.quarantine_after or self.is_quarantined:
            return
        self.is_quarantined = True
        fate = "every request is refused" if self._refuses else "every request goes to the least loaded worker"
        _LOGGER.error(
            "%s is QUARANTINED after %d %s in a row of %s: %s until the router restarts",
            self._label,
            strikes,
            what,
            hook,
            fate,
        )

    @property
    def _remedy(self) -> str:
        return "the request is refused" if self._refuses else "the least loaded worker is taken"
