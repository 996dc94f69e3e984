"""How a request ended, out of the outcomes of its attempts and of their legs."""

from __future__ import annotations

from router_core.contract.request import OutcomeStatus, RequestOutcome

_FAULTLESS = frozenset({OutcomeStatus.SUCCESS, OutcomeStatus.CANCELLED})


def last_outcome(known: RequestOutcome | None, outcome: RequestOutcome) -> RequestOutcome:
    """Return which of two tells how it ended: the later, but of a pair the leg's that failed.

    The other leg was cancelled for it, or had succeeded before.

    Args:
        known: What told it so far.
        outcome: Of an attempt, or a leg, that ended just now.
    """
    if (
        outcome.status is not OutcomeStatus.CANCELLED
        or known is None
        or known.attempt != outcome.attempt
        or known.status in _FAULTLESS
    ):
        return outcome
    return known
