"""What a policy is made of besides its hooks: its options, and the few helpers most policies want."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pydantic import BaseModel, ConfigDict
from xxhash import xxh3_64_intdigest

from router_core.contract.worker import Worker


class PolicyConfig(BaseModel):
    """Base of a policy's options: nest it as `class Config(PolicyConfig)`. Unknown options are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True)


def healthy(workers: Iterable[Worker]) -> tuple[Worker, ...]:
    """Return the healthy ones, in order. Candidates given to a select hook already are."""
    return tuple(worker for worker in workers if worker.is_healthy)


def least_loaded(workers: Sequence[Worker]) -> Worker:
    """Return the worker with the fewest requests in flight.

    Ties go to the one whose latest reservation is oldest, so equal workers take turns and a newcomer gets one request,
    not all of them.

    Args:
        workers: At least one.

    Raises:
        ValueError: If there is none.
    """
    if not workers:
        raise ValueError("least_loaded() needs at least one worker; check the candidates before calling it")
    best = workers[0]
    load, turn = best.load, best.last_reserved
    for worker in workers:
        if worker.load < load or (worker.load == load and worker.last_reserved < turn):
            best, load, turn = worker, worker.load, worker.last_reserved
    return best


def fewest_tokens(workers: Sequence[Worker]) -> Worker:
    """Return the worker with the fewest tokens in flight: pending prompts, and context being decoded.

    What a decode leg costs a worker. Ties go to the one with fewer requests, then as in `least_loaded`.

    Args:
        workers: At least one.

    Raises:
        ValueError: If there is none.
    """
    if not workers:
        raise ValueError("fewest_tokens() needs at least one worker; check the candidates before calling it")
    return min(workers, key=_tokens)


def _tokens(worker: Worker) -> tuple[int, int, int]:
    return worker.pending_prompt_tokens + worker.decode_tokens, worker.load, worker.last_reserved


def rendezvous(workers: Sequence[Worker], key: str) -> Worker:
    """Return the worker that highest-random-weight hashing gives `key` (Thaler and Ravishankar, 1998).

    The same key goes to the same worker in every process; when a worker leaves, only its own keys move.

    Args:
        workers: At least one.
        key: What to keep together, such as a user or a session.

    Raises:
        ValueError: If there is no worker.
    """
    if not workers:
        raise ValueError("rendezvous() needs at least one worker; check the candidates before calling it")
    seed = xxh3_64_intdigest(key.encode("utf-8", "surrogatepass"))
    return max(workers, key=lambda worker: xxh3_64_intdigest(worker.url.encode(), seed))
