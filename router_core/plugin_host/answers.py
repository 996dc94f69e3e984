"""What a policy answered, matched against the candidates. Pure: says what fits and what does not.

A healthy single answer never comes here; the manager recognises it by identity.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass

from router_core.contract.worker import Worker
from router_core.plugin_host.faults import FaultKind


@dataclass(frozen=True, slots=True)
class Misfit:
    """An answer that cannot be used: the kind of fault, and what to say of it."""

    kind: FaultKind
    sentence: str


def match_single(answer: object, workers: tuple[Worker, ...]) -> Worker | Misfit:
    """Return the candidate that `answer` means: the same object, or the one with the same url."""
    if isinstance(answer, Worker):
        member = _member(answer, workers)
        if member is not None:
            return member
        return Misfit(FaultKind.STRANGER, f"returned {answer.url}, which is no candidate; return one of `workers`")
    return Misfit(FaultKind.WRONG_TYPE, f"returned {_kind(answer)}; return one of `workers`, or None")


def match_pair(
    answer: object, prefill_workers: tuple[Worker, ...], decode_workers: tuple[Worker, ...]
) -> tuple[Worker, Worker] | Misfit:
    """Return the candidates that `answer` means, the prefill worker first."""
    # 0. As it should be: candidates themselves. Not worth a look at urls.
    if type(answer) is tuple and len(answer) == 2:
        first, second = answer
        if _is_one_of(first, prefill_workers) and _is_one_of(second, decode_workers):
            return answer
    # 1. No pair of workers.
    if not isinstance(answer, tuple | list):
        return Misfit(FaultKind.WRONG_TYPE, f"returned {_kind(answer)}; return (prefill, decode), or None")
    if len(answer) != 2 or not all(isinstance(one, Worker) for one in answer):
        kinds = ", ".join(_kind(one) for one in answer)
        return Misfit(FaultKind.WRONG_TYPE, f"returned ({kinds}); return (prefill, decode), or None")
    # 2. A pair of candidates.
    first, second = answer
    prefill, decode = _member(first, prefill_workers), _member(second, decode_workers)
    if prefill is not None and decode is not None:
        return prefill, decode
    # 3. Candidates in the wrong places, or strangers.
    everybody = (*prefill_workers, *decode_workers)
    if _member(first, everybody) is not None and _member(second, everybody) is not None:
        return Misfit(
            FaultKind.WRONG_ROLE,
            f"returned ({first.url}, {second.url}); the first comes from `prefill_workers`, the second from "
            "`decode_workers`",
        )
    stranger = second if _member(first, everybody) is not None else first
    return Misfit(FaultKind.STRANGER, f"returned {stranger.url}, which is no candidate")


def discard(answer: object) -> None:
    """Close an answer that was not meant to be one, so that Python does not warn of a coroutine never awaited."""
    if inspect.iscoroutine(answer):
        answer.close()


def _is_one_of(answer: object, workers: tuple[Worker, ...]) -> bool:
    for worker in workers:  # noqa: SIM110  # any() is slower, and this is once a request
        if worker is answer:
            return True
    return False


def _member(worker: Worker, workers: tuple[Worker, ...]) -> Worker | None:
    url = worker.url
    return next((member for member in workers if member.url == url), None)


def _kind(answer: object) -> str:
    name = type(answer).__name__
    return f"{'an' if name[:1] in 'aeiou' else 'a'} {name}"
