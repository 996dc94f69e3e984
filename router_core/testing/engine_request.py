"""What a simulated engine reads out of a request body, and the text it answers: always the same for the same prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson
from xxhash import xxh3_64_intdigest

GENERATION_PATHS = frozenset({"/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages", "/generate"})
DEFAULT_TOKENS = 16
_PROMPT_LOGPROBS = frozenset({"/v1/chat/completions", "/v1/completions"})

_WORDS = (
    *("the", "model", "thinks", "for", "a", "while", "about", "tokens", "blocks", "queues", "caches", "and", "says"),
    *("that", "nobody", "knows", "better", "than", "grün", "世界"),
)
_ECHOED_WORDS = 6


class BadRequestError(Exception):
    """The body cannot be answered; the message goes to the client with status 400."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One generation request, whatever API it came by.

    Attributes:
        model: As the client named it, None when it named none.
        prompts: The prompt of each choice group; more than one only for batches.
        namespace: LoRA adapter and cache salt: prompts that differ in it share no cache.
        tokens: Tokens of each choice.
        finish: `stop`, or `length` when the client's limit cut the answer.
        stream: Whether the client wants server-sent events.
        include_usage: Whether it wants a usage chunk at the end of them.
        copies: Choices for each prompt.
        logprob_start: From which prompt token on SGLang's log probabilities are wanted, -1 for the last; None for none.
        prompt_logprobs: Whether vLLM's log probabilities of the prompt are wanted.
    """

    model: str | None
    prompts: tuple[str, ...]
    namespace: str
    tokens: int
    finish: str
    stream: bool
    include_usage: bool
    copies: int
    logprob_start: int | None = None
    prompt_logprobs: bool = False

    def choices(self) -> list[list[str]]:
        """Return the tokens of every choice: all copies of the first prompt, then of the second."""
        return [answer_tokens(prompt, self.tokens, copy) for prompt in self.prompts for copy in range(self.copies)]


def read_json(body: bytes) -> dict[str, Any]:
    """Return the body as a JSON object.

    Raises:
        BadRequestError: If it is none.
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequestError(f"the body is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise BadRequestError("the body is not a JSON object")
    return document


def read_ask(path: str, body: dict[str, Any], default_tokens: int = DEFAULT_TOKENS) -> Ask:
    """Read a generation request.

    Args:
        path: One of `GENERATION_PATHS`.
        body: Its JSON body.
        default_tokens: How long an answer gets before the model would stop by itself.

    Raises:
        BadRequestError: If there is no prompt in it, or a limit is not a number.
    """
    sampling = body.get("sampling_params") or {} if path == "/generate" else body
    if not isinstance(sampling, dict):
        raise BadRequestError("sampling_params is not a JSON object")
    limit = _count(sampling, "max_completion_tokens", "max_tokens", "max_output_tokens", "max_new_tokens")
    tokens = max(default_tokens, _count(sampling, "min_tokens", "min_new_tokens") or 0)
    if limit is not None and (limit < tokens or sampling.get("ignore_eos") is True):
        tokens, finish = max(1, limit), "length"
    else:
        tokens, finish = max(1, tokens), "stop"
    stream_options = body.get("stream_options") or {}
    model = body.get("model")
    lora = body.get("lora_path") or model
    return Ask(
        model=model if isinstance(model, str) else None,
        prompts=read_prompts(path, body),
        namespace=f"{lora}|{body.get('cache_salt') or ''}",
        tokens=tokens,
        finish=finish,
        stream=body.get("stream") is True,
        include_usage=stream_options.get("include_usage") is True,
        copies=max(1, _count(sampling, "n") or 1),
        logprob_start=_logprob_start(body) if path == "/generate" else None,
        prompt_logprobs=path in _PROMPT_LOGPROBS and body.get("prompt_logprobs") is not None,
    )


def read_prompts(path: str, body: dict[str, Any]) -> tuple[str, ...]:
    """Return the prompts of a generation request, each as one text.

    Raises:
        BadRequestError: If there is none.
    """
    if path == "/v1/completions":
        return _prompt_batch(body.get("prompt"), "prompt")
    if path == "/generate":
        name = "text" if "text" in body else "input_ids"
        return _prompt_batch(body.get(name), name)
    if path == "/v1/responses":
        given = body.get("input")
        messages = [{"role": "user", "content": given}] if isinstance(given, str) else given
        return (_conversation(messages, "input", system=body.get("instructions")),)
    return (_conversation(body.get("messages"), "messages", system=body.get("system")),)


def answer_tokens(prompt: str, count: int, copy: int = 0) -> list[str]:
    """Return the first `count` tokens of the answer to `prompt`: an echo of its last words, then babble fixed by it.

    Args:
        prompt: The whole prompt.
        count: How many tokens.
        copy: Which of several choices for the same prompt; each says something else.
    """
    seed = xxh3_64_intdigest(prompt.encode("utf-8", "surrogatepass"), copy)
    last_words = prompt[-200:].rpartition("|>\n")[2].split()[-_ECHOED_WORDS:]
    tokens = ["You", " said:", *(" " + word for word in last_words), f" [{seed:016x}]"][:count]
    for position in range(len(tokens), count):
        tokens.append(" " + _WORDS[xxh3_64_intdigest(position.to_bytes(4, "little"), seed) % len(_WORDS)])
    return tokens


def expected_text(
    body: dict[str, Any], *, path: str | None = None, tokens: int = DEFAULT_TOKENS, choice: int = 0
) -> str:
    """Return the text every simulated engine answers to a generation request, byte for byte.

    Args:
        body: The JSON body as it was sent.
        path: The path it was sent to; guessed from the body when it is one of the OpenAI or SGLang APIs.
        tokens: The engine's `tokens`.
        choice: Index of the choice.
    """
    if path is None:
        paths = {"prompt": "/v1/completions", "input": "/v1/responses", "text": "/generate", "input_ids": "/generate"}
        path = next((paths[name] for name in paths if name in body), "/v1/chat/completions")
    return "".join(read_ask(path, body, tokens).choices()[choice])


def flatten_content(content: Any) -> str:
    """Return a message's content as text: a string, a list of parts, or nothing."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(flatten_content(part.get("text") if isinstance(part, dict) else part) for part in content)
    return ""


def _conversation(messages: Any, name: str, *, system: Any = None) -> str:
    if not isinstance(messages, list) or not messages:
        raise BadRequestError(f"{name} is missing or empty")
    parts = [f"<|system|>\n{flatten_content(system)}\n"] if system else []
    for message in messages:
        if not isinstance(message, dict):
            raise BadRequestError(f"{name} holds something that is not an object")
        parts.append(f"<|{message.get('role', '')}|>\n{flatten_content(message.get('content'))}\n")
    return "".join(parts)


def _prompt_batch(prompt: Any, name: str) -> tuple[str, ...]:
    if isinstance(prompt, str):
        return (prompt,)
    if not isinstance(prompt, list) or not prompt:
        raise BadRequestError(f"{name} is missing or empty")
    if isinstance(prompt[0], int):
        return (" ".join(map(str, prompt)),)
    return tuple(item if isinstance(item, str) else " ".join(map(str, item)) for item in prompt)


def _logprob_start(body: dict[str, Any]) -> int | None:
    start = body.get("logprob_start_len", -1)
    if body.get("return_logprob") is not True:
        return None
    if not isinstance(start, int):
        raise BadRequestError(f"logprob_start_len must be a whole number, not {start!r}")
    return start


def _count(options: dict[str, Any], *names: str) -> int | None:
    for name in names:
        value = options.get(name)
        if value is None:
            continue
        if not isinstance(value, int) or value < 0:
            raise BadRequestError(f"{name} must be a whole number, not {value!r}")
        return value
    return None
