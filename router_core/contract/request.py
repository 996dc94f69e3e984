"""One request as a policy sees it, and how it ended. Host-neutral: no HTTP objects, nothing to await."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple, Protocol

from router_core.contract.errors import UndeclaredNeedError
from router_core.contract.prefix import chained_block_hashes

_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class Leg(StrEnum):
    """Which part of a request is being placed: all of it, or one leg of a prefill/decode pair."""

    SINGLE = "single"
    PREFILL = "prefill"
    DECODE = "decode"


class OutcomeStatus(StrEnum):
    """How an attempt ended.

    `client_error` is the client's own 4xx, `backpressure` a worker's 429 or 503, `error` any other 5xx or a broken
    connection, `timeout` a limit of the router's that ran out, `cancelled` a client that went away, a leg that was
    ended because the other one failed, or a worker that the router had no file or port left to connect to.
    """

    SUCCESS = "success"
    CLIENT_ERROR = "client_error"
    BACKPRESSURE = "backpressure"
    ERROR = "error"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"


class RequestOutcome(NamedTuple):
    """How one attempt of one leg ended. Read the fields by name: later versions may add some.

    Attributes:
        status: What became of it.
        http_status: The worker's HTTP status, None when it sent none.
        duration_s: Seconds from selection to the end of the answer.
        ttft_s: Seconds from selection to the first byte of the answer's body, None when there was none or an error.
        prompt_tokens: Prompt tokens the reply reports, or None.
        cached_tokens: Prompt tokens served from the engine's cache as the reply reports, or None.
        completion_tokens: Generated tokens the reply reports, or None.
        attempt: 1 for the first try.
        leg: Which leg this was.
    """

    status: OutcomeStatus
    http_status: int | None = None
    duration_s: float = 0.0
    ttft_s: float | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    attempt: int = 1
    leg: Leg = Leg.SINGLE

    @property
    def is_success(self) -> bool:
        """True for success and for the client's own errors: the worker did its part."""
        return self.status in _WORKER_DID_ITS_PART


_WORKER_DID_ITS_PART = frozenset({OutcomeStatus.SUCCESS, OutcomeStatus.CLIENT_ERROR})


Namespace = tuple[str | None, str | None, str | None]
"""Model, LoRA adapter and cache salt."""


class Prompt(Protocol):
    """Where a request's facts come from; every member may be computed on first use."""

    @property
    def model(self) -> str | None: ...
    @property
    def text(self) -> str: ...
    @property
    def input_tokens(self) -> int: ...
    @property
    def text_tokens(self) -> int: ...
    @property
    def user(self) -> str | None: ...
    @property
    def session(self) -> str | None: ...
    @property
    def lora(self) -> str | None: ...
    @property
    def cache_salt(self) -> str | None: ...
    @property
    def namespace(self) -> Namespace: ...
    @property
    def prefix(self) -> tuple[int, ...]: ...


@dataclass(frozen=True, slots=True)
class LiteralPrompt:
    """A prompt whose facts are already known: tests, simulators, other hosts."""

    text: str = ""
    model: str | None = None
    input_tokens: int = 0
    user: str | None = None
    session: str | None = None
    lora: str | None = None
    cache_salt: str | None = None

    @property
    def namespace(self) -> Namespace:
        """Model, adapter and salt."""
        return self.model, self.lora, self.cache_salt

    @property
    def text_tokens(self) -> int:
        """The same as `input_tokens`: it is known."""
        return self.input_tokens

    @property
    def prefix(self) -> tuple[int, ...]:
        """Hashed anew each time; the request keeps them."""
        return chained_block_hashes(self.text, self.namespace)


class RoutingRequest:
    """What a policy may know of a request.

    Costly facts (`text`, `prefix`, headers) are there only for a policy whose `needs` declares them. Everything is
    computed on first use and at most once.

    Attributes:
        id: Names the request in logs and traces.
        leg: Single, or which leg of a pair is being placed.
        attempt: 1 for the first try.
        input_tokens: Estimated prompt tokens, never a tokenizer's count: four bytes of `text` each, as `prefix` counts,
            for a policy that needs one of them; else four bytes of the body.
        headers: The request headers declared as `header:<name>` needs, by lower-case name.
        reason: What the policy last gave to `explain`, or None.
        reason_parts: The figures it gave with it.
    """

    __slots__ = (
        "id",
        "leg",
        "attempt",
        "input_tokens",
        "headers",
        "reason",
        "reason_parts",
        "_prompt",
        "_needs",
        "_prefix",
    )

    def __init__(
        self,
        id: str,
        prompt: Prompt,
        *,
        needs: frozenset[str] = frozenset(),
        headers: Mapping[str, str] = _NO_HEADERS,
        leg: Leg = Leg.SINGLE,
        attempt: int = 1,
    ) -> None:
        self.id = id
        self.leg = leg
        self.attempt = attempt
        # A body is larger than its text, several times if it escapes it: beside `prefix` that would pass for uncached.
        self.input_tokens = prompt.text_tokens if "prefix" in needs or "text" in needs else prompt.input_tokens
        self.headers = headers
        self.reason: str | None = None
        self.reason_parts: Mapping[str, object] = _NO_HEADERS
        self._prompt = prompt
        self._needs = needs
        self._prefix: tuple[int, ...] | None = None

    @property
    def model(self) -> str | None:
        """The model the client asked for, None when it named none."""
        return self._prompt.model

    @property
    def text(self) -> str:
        """The whole conversation, all messages with their roles as separators. Needs `text`."""
        if "text" not in self._needs:
            raise UndeclaredNeedError("text")
        return self._prompt.text

    @property
    def prefix(self) -> tuple[int, ...]:
        """Chained 64-bit hashes of the prompt's blocks: equal hashes mean an equal block and an equal prefix before it.

        Needs `prefix`. Model, LoRA adapter and cache salt are part of the first hash, so unlike prompts never alias.
        """
        if self._prefix is None:
            if "prefix" not in self._needs:
                raise UndeclaredNeedError("prefix")
            self._prefix = self._prompt.prefix
        return self._prefix

    @property
    def user(self) -> str | None:
        """The end user the client named, or None."""
        return self._prompt.user

    @property
    def session(self) -> str | None:
        """The conversation the client named, or None."""
        return self._prompt.session

    @property
    def lora(self) -> str | None:
        """The LoRA adapter the client asked for, or None."""
        return self._prompt.lora

    @property
    def cache_salt(self) -> str | None:
        """The client's KV-cache namespace, or None: prompts with unlike salts share no cache."""
        return self._prompt.cache_salt

    @property
    def namespace(self) -> Namespace:
        """Model, LoRA adapter and cache salt: prompts that differ in any of them share no cache."""
        return self._prompt.namespace

    def next_attempt(
        self, *, needs: frozenset[str] | None = None, headers: Mapping[str, str] | None = None
    ) -> RoutingRequest:
        """Return the same request for another try, with what was computed of it. For the core, not for policies.

        Args:
            needs: What the policy needs that is asked now, if it is another one.
            headers: The headers it declares.
        """
        again = RoutingRequest(
            self.id,
            self._prompt,
            needs=self._needs if needs is None else needs,
            headers=self.headers if headers is None else headers,
            leg=self.leg,
            attempt=self.attempt + 1,
        )
        again._prefix = self._prefix
        return again

    def explain(self, reason: str, **parts: object) -> None:
        """Say why the worker about to be returned was chosen.

        Args:
            reason: A short fixed word such as `cache_hit`: it becomes a metric label, so never put a value in it.
            **parts: The figures behind it; shown in the log at level debug, not in metrics. One has a meaning to the
                router: `cached_share`, the share (0 to 1) of the prompt that the policy expects in the worker's
                cache. It is compared with what the engine reports, so that a policy gone blind is noticed.
        """
        self.reason = reason
        self.reason_parts = parts
