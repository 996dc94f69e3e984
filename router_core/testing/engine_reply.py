"""What every API's answer has: its tokens, its usage, and how it is rendered whole or token by token."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import Any

import orjson

from router_core.testing.engine_request import Ask

DONE = b"data: [DONE]\n\n"


class Reply(ABC):
    """One answer in the shape of one API. Everything is known beforehand but the cached tokens.

    Attributes:
        id: The answer's id, as the client sees it.
        tokens: Tokens of each choice.
        prompt_tokens: Tokens of all prompts.
        cached_tokens: How many of them came from the prefix cache; set before anything is rendered.
        kv_transfer_params: What a prefill engine tells the decode engine; None for nothing.
        knows_prompt: Whether the engine computed the prompt itself, and so knows its log probabilities.
    """

    id_prefix = ""

    def __init__(self, ask: Ask, id: str, *, engine: str, model: str, prompt_tokens: int) -> None:
        self.id = self.id_prefix + id
        self.prompt_tokens = prompt_tokens
        self.cached_tokens = 0
        self.kv_transfer_params: dict[str, Any] | None = None
        self.knows_prompt = True
        self.choices = ask.choices()
        self.tokens = ask.tokens
        self._ask = ask
        self._engine = engine
        self._model = ask.model or model
        self._created = int(time.time())

    @property
    def completion_tokens(self) -> int:
        """Tokens of all choices."""
        return self.tokens * len(self.choices)

    @abstractmethod
    def document(self) -> dict[str, Any]:
        """Return the whole answer to a request that does not stream."""

    @abstractmethod
    def opening(self) -> bytes:
        """Return the events before the first token."""

    @abstractmethod
    def delta(self, position: int) -> bytes:
        """Return the events of the token at `position`, one for each choice."""

    @abstractmethod
    def closing(self) -> bytes:
        """Return the events after the last token."""

    def usage(self) -> dict[str, Any]:
        """Return the usage object of the OpenAI completion APIs."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "completion_tokens": self.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens},
        }

    def _prompt(self, choice: int) -> str:
        return self._ask.prompts[choice // self._ask.copies]

    def _texts(self) -> list[str]:
        return ["".join(tokens) for tokens in self.choices]


def named_event(name: str, fields: dict[str, Any]) -> bytes:
    """Return a server-sent event with a name."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), orjson.dumps(fields))
