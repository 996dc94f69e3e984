"""Who owns load: every reservation and its release go through here, so that `Worker.load` is the truth.

A reservation is made in the same step as the selection; its release is idempotent, whoever asks for it and how often.
"""

from __future__ import annotations

from router_core.contract.request import Leg, RoutingRequest
from router_core.contract.worker import Worker

_set = object.__setattr__  # Workers are read-only to everybody else; `assign` would cost a call and a dict.


class Ledger:
    """Counts what this router has given to each worker of one pool."""

    def __init__(self) -> None:
        self._reservations = 0

    def reserve(self, worker: Worker, request: RoutingRequest, leg: Leg = Leg.SINGLE) -> Lease:
        """Count a request, or one leg of it, on a worker until the lease is released.

        A prefill leg's tokens are pending until it is over, a decode leg's are context from the beginning.
        """
        self._reservations += 1
        tokens = request.input_tokens
        _set(worker, "load", worker.load + 1)
        _set(worker, "pending_prompt_tokens", worker.pending_prompt_tokens + tokens)
        _set(worker, "last_reserved", self._reservations)
        lease = Lease(worker, tokens)
        if leg is Leg.DECODE:
            lease.first_token()
        return lease


class Lease:
    """One request's place on one worker."""

    __slots__ = ("_is_decoding", "_is_released", "_tokens", "worker")

    def __init__(self, worker: Worker, tokens: int) -> None:
        self.worker = worker
        self._tokens = tokens
        self._is_decoding = False
        self._is_released = False

    def first_token(self) -> None:
        """The prefill is over: the prompt's tokens are context being decoded from now on."""
        if self._is_decoding or self._is_released:
            return
        self._is_decoding = True
        worker, tokens = self.worker, self._tokens
        _set(worker, "pending_prompt_tokens", worker.pending_prompt_tokens - tokens)
        _set(worker, "decode_tokens", worker.decode_tokens + tokens)

    def release(self) -> bool:
        """Give the place back; returns False if that was done before."""
        if self._is_released:
            return False
        self._is_released = True
        worker, tokens = self.worker, self._tokens
        _set(worker, "load", worker.load - 1)
        if self._is_decoding:
            _set(worker, "decode_tokens", worker.decode_tokens - tokens)
        else:
            _set(worker, "pending_prompt_tokens", worker.pending_prompt_tokens - tokens)
        _set(worker, "requests_processed", worker.requests_processed + 1)
        return True

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()
