"""What a request's body says, read only when somebody asks and at most once. The body itself is never changed."""

from __future__ import annotations

from typing import Any

import orjson

from router_core.contract.prefix import chained_block_hashes
from router_core.contract.request import Namespace
from router_core.relay.request_head import RequestHead

# Stands before each role, where no client's text can fake it by chance: ASCII's own record and unit separators.
_ROLE, _CONTENT = "\x1e", "\x1f"
BYTES_PER_TOKEN = 4
_MAX_DEPTH = 8


class BodyPrompt:
    """A request's facts, out of its JSON body. What is missing or malformed is None or empty; the engine judges it."""

    __slots__ = ("_body", "_fields", "_head", "_text")

    def __init__(self, head: RequestHead, body: bytes) -> None:
        self._head = head
        self._body = body
        self._fields: dict[str, Any] | None = None  # Any: a client's JSON
        self._text: str | None = None

    @property
    def model(self) -> str | None:
        """`model`."""
        return self._string("model")

    @property
    def input_tokens(self) -> int:
        """A fourth of the body's bytes: no parsing, and right to a few per cent for long prompts of text."""
        return len(self._body) // BYTES_PER_TOKEN

    @property
    def text_tokens(self) -> int:
        """A fourth of the bytes of `text`, which is what `prefix` cuts into blocks."""
        text = self.text
        size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
        return size // BYTES_PER_TOKEN

    @property
    def user(self) -> str | None:
        """`user` (OpenAI) or `metadata.user_id` (Anthropic)."""
        return self._string("user") or _string(self.fields.get("metadata"), "user_id")

    @property
    def session(self) -> str | None:
        """Header `x-session-id`, else `session_id`, `session_params.session_id` or `prompt_cache_key` of the body."""
        header = self._head.fields.get(b"x-session-id")
        if header is not None:
            return header.decode("latin-1")
        return (
            self._string("session_id")
            or _string(self.fields.get("session_params"), "session_id")
            or self._string("prompt_cache_key")
        )

    @property
    def lora(self) -> str | None:
        """`lora_path` (SGLang); vLLM names an adapter by `model`."""
        return self._string("lora_path")

    @property
    def cache_salt(self) -> str | None:
        """`cache_salt` (vLLM) or `extra_key` (SGLang)."""
        return self._string("cache_salt") or self._string("extra_key")

    @property
    def namespace(self) -> Namespace:
        """Model, adapter and salt in one go: a policy that follows prefixes asks for every request."""
        fields = self.fields
        model, lora = fields.get("model"), fields.get("lora_path")
        salt = fields.get("cache_salt") or fields.get("extra_key")
        return (
            model if isinstance(model, str) else None,
            lora if isinstance(lora, str) else None,
            salt if isinstance(salt, str) else None,
        )

    @property
    def text(self) -> str:
        """The whole prompt: instructions, then all messages with their roles between them, or the plain prompt."""
        if self._text is None:
            self._text = _prompt_text(self.fields)
        return self._text

    @property
    def prefix(self) -> tuple[int, ...]:
        """Hashed anew each time; the request keeps them."""
        return chained_block_hashes(self.text, self.namespace)

    @property
    def is_object(self) -> bool:
        """Whether the body is a JSON object; one without fields is parsed again to tell."""
        if self.fields:
            return True
        try:
            return isinstance(orjson.loads(self._body), dict)
        except orjson.JSONDecodeError:
            return False

    @property
    def fields(self) -> dict[str, Any]:
        """The body's JSON object, empty when it is none."""
        if self._fields is None:
            try:
                fields = orjson.loads(self._body)
            except orjson.JSONDecodeError:
                fields = None
            self._fields = fields if isinstance(fields, dict) else {}
        return self._fields

    def _string(self, name: str) -> str | None:
        return _string(self.fields, name)


def _string(fields: object, name: str) -> str | None:
    value = fields.get(name) if isinstance(fields, dict) else None
    return value if isinstance(value, str) else None


def _prompt_text(fields: dict[str, Any]) -> str:
    # 1. Conversations: chat completions, and Anthropic's messages with the system prompt beside them.
    messages = fields.get("messages")
    if isinstance(messages, list):
        return _conversation(fields.get("system"), messages)
    # 2. Responses, and embeddings' input.
    if "input" in fields:
        given = fields["input"]
        if isinstance(given, list) and given and isinstance(given[0], dict):
            return _conversation(fields.get("instructions"), given)
        instructions = _content(fields.get("instructions"))
        return (
            f"{_ROLE}system{_CONTENT}{instructions}{_ROLE}user{_CONTENT}{_content(given)}"
            if instructions
            else (_content(given))
        )
    # 3. Plain prompts under their various names: completions, generate, rerank and score.
    return _CONTENT.join(
        _content(fields[name])
        for name in ("prompt", "text", "input_ids", "query", "text_1", "documents", "text_2")
        if fields.get(name) is not None
    )


def _conversation(system: object, messages: list[Any]) -> str:
    parts = [f"{_ROLE}system{_CONTENT}{_content(system)}"] if system else []
    for message in messages:
        if not isinstance(message, dict):
            continue
        content = message.get("content")
        role = message.get("role") or message.get("type") or ""
        parts.append(f"{_ROLE}{role}{_CONTENT}{content if type(content) is str else _content(content)}")
        calls = message.get("tool_calls") or message.get("arguments") or message.get("output")
        if calls:
            parts.append(_content(calls))
    return "".join(parts)


def _content(content: object, depth: int = 0) -> str:
    """Return the text of a string, of parts, of token ids, or of lists of them; what is nested absurdly has none."""
    if isinstance(content, str):
        return content
    if content is None or depth > _MAX_DEPTH:
        return ""
    if isinstance(content, list):
        if content and isinstance(content[0], int):
            return " ".join([str(part) for part in content if type(part) is int])
        return _CONTENT.join([_content(part, depth + 1) for part in content])
    if isinstance(content, dict):
        text = content.get("text")
        if isinstance(text, str):
            return text
        try:
            return orjson.dumps(content).decode()
        except orjson.JSONEncodeError:
            return ""
    return str(content)
