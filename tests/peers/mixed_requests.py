"""Requests of all kinds, some with fields that no router knows; always the same ones for a seed."""

from __future__ import annotations

import json
import random
from typing import Any, NamedTuple

UNKNOWN = "x_unknown"
"""What fields are called that no router knows."""


class Sent(NamedTuple):
    """One request.

    Attributes:
        id: Its `x-request-id`.
        path: Where it goes.
        headers: Beside id and content type.
        body: The bytes.
    """

    id: str
    path: str
    headers: dict[str, str]
    body: bytes


def mixed_requests(count: int, *, seed: int, paths: tuple[str, ...] | None = None) -> list[Sent]:
    """Return requests to chat, completions, generate and embeddings, mixed at random.

    Args:
        count: How many.
        seed: Same seed, same requests.
        paths: Only these paths.
    """
    chance = random.Random(seed)
    choices = {path: make for path, make in _MAKERS.items() if paths is None or path in paths}
    requests = []
    for number in range(count):
        path = chance.choice(list(choices))
        body = choices[path](chance)
        if path in _STREAMED and chance.random() < 0.4:
            body["stream"] = True
        if chance.random() < 0.3:
            body[UNKNOWN] = {"deep": [1, None, "ä"]}
        headers = {name: value for name, value in _HEADERS.items() if chance.random() < 0.5}
        layout: dict[str, Any] = chance.choice([{}, {"indent": 1}, {"separators": (",", ":")}, {"ensure_ascii": False}])
        requests.append(Sent(f"same-{seed}-{number}", path, headers, json.dumps(body, **layout).encode()))
    return requests


def _chat(chance: random.Random) -> dict[str, Any]:
    messages: list[dict[str, Any]] = [{"role": "user", "content": _text(chance)}]
    if chance.random() < 0.5:
        messages.insert(0, {"role": "system", "content": "Answer briefly."})
    if chance.random() < 0.3:
        messages += [{"role": "assistant", "content": _text(chance)}, {"role": "user", "content": "And then?"}]
    if chance.random() < 0.2:
        messages[-1]["content"] = [{"type": "text", "text": _text(chance)}]
    if chance.random() < 0.2:
        messages[-1][UNKNOWN] = True
    body = {"model": "m", "messages": messages, **_sampling(chance)}
    if chance.random() < 0.2:
        parameters = {"type": "object", "properties": {"city": {"type": "string"}}}
        body["tools"] = [{"type": "function", "function": {"name": "weather", "parameters": parameters}}]
    if chance.random() < 0.2:
        body["response_format"] = {"type": "json_object"}
    return body


def _completion(chance: random.Random) -> dict[str, Any]:
    return {"model": "m", "prompt": _text(chance), **_sampling(chance)}


def _generate(chance: random.Random) -> dict[str, Any]:
    sampling: dict[str, Any] = {"temperature": 0.5, "max_new_tokens": chance.randrange(1, 99)}
    if chance.random() < 0.3:
        sampling[UNKNOWN] = 1
    if chance.random() < 0.5:
        return {"text": _text(chance), "sampling_params": sampling}
    return {"input_ids": [chance.randrange(32000) for _ in range(20)], "sampling_params": sampling}


def _embedding(chance: random.Random) -> dict[str, Any]:
    return {"model": "m", "input": _text(chance)}


def _sampling(chance: random.Random) -> dict[str, Any]:
    known = {
        "temperature": 0.25,
        "top_p": 0.5,
        "max_tokens": chance.randrange(1, 99),
        "seed": 7,
        "stop": ["\n"],
        "n": 1,
    }
    return {name: value for name, value in known.items() if chance.random() < 0.5}


def _text(chance: random.Random) -> str:
    return " ".join(
        chance.choice(["the", "cat", "Ärger", "东京", "😀", 'qu"ote', "tab\t"]) for _ in range(chance.randrange(1, 60))
    )


_MAKERS = {
    "/v1/chat/completions": _chat,
    "/v1/completions": _completion,
    "/generate": _generate,
    "/v1/embeddings": _embedding,
}
_STREAMED = frozenset({"/v1/chat/completions", "/v1/completions", "/generate"})
_HEADERS = {
    "authorization": "Bearer sk-client",
    "x-correlation-id": "c-1",
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "x-smg-routing-key": "k",
    "cookie": "a=b",
    "x-custom": "kept by nobody",
    "user-agent": "peers/1",
}
