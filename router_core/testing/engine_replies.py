"""The wire shapes of generated answers: one JSON document, or server-sent events token by token, for each API."""

# ruff: noqa: D102 - what opening, delta, closing and document do is said once, at Reply
from __future__ import annotations

from typing import Any

import orjson

from router_core.testing.engine_logprobs import input_token_logprobs, output_token_logprobs, prompt_logprobs
from router_core.testing.engine_reply import DONE, Reply, named_event
from router_core.testing.engine_request import Ask


class ChatReply(Reply):
    """`/v1/chat/completions`."""

    id_prefix = "chatcmpl-"
    _object = "chat.completion"
    _chunk_object = "chat.completion.chunk"

    def __init__(self, ask: Ask, id: str, *, engine: str, model: str, prompt_tokens: int) -> None:
        super().__init__(ask, id, engine=engine, model=model, prompt_tokens=prompt_tokens)
        # A delta is glued together rather than serialised: it is made twenty times a second for each stream.
        self._before = [self._chunk_head() + b'"choices":[{"index":%d,' % n for n in range(len(self.choices))]

    def document(self) -> dict[str, Any]:
        choices = [
            {"index": index} | self._whole(text) | {"logprobs": None, "finish_reason": self._ask.finish}
            for index, text in enumerate(self._texts())
        ]
        document = self._head(self._object) | {"choices": choices, "usage": self.usage()}
        if self._ask.prompt_logprobs:
            self._add_prompt_logprobs(document)
        if self.kv_transfer_params is not None:
            document["kv_transfer_params"] = self.kv_transfer_params
        return document

    def opening(self) -> bytes:
        role = b'"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]}\n\n'
        return b"".join(before + role for before in self._before)

    def delta(self, position: int) -> bytes:
        after = b'},"logprobs":null,"finish_reason":null}]}\n\n'
        return b"".join(
            before + b'"delta":{"content":' + orjson.dumps(tokens[position]) + after
            for before, tokens in zip(self._before, self.choices, strict=True)
        )

    def closing(self) -> bytes:
        reason = b'"delta":{},"logprobs":null,"finish_reason":"%b"}]}\n\n' % self._ask.finish.encode()
        return b"".join(before + reason for before in self._before) + self._usage_chunk() + DONE

    def _add_prompt_logprobs(self, document: dict[str, Any]) -> None:
        document["prompt_logprobs"] = self._prompt_logprobs(0)

    def _prompt_logprobs(self, choice: int) -> list[dict[str, Any] | None] | None:
        return prompt_logprobs(self._prompt(choice)) if self.knows_prompt else None

    def _whole(self, text: str) -> dict[str, Any]:
        return {"message": {"role": "assistant", "content": text}}

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self._created,
            "model": self._model,
            "system_fingerprint": self._engine,
        }

    def _chunk_head(self) -> bytes:
        return b"data: " + orjson.dumps(self._head(self._chunk_object))[:-1] + b","

    def _usage_chunk(self) -> bytes:
        if not self._ask.include_usage:
            return b""
        return self._chunk_head() + b'"choices":[],"usage":' + orjson.dumps(self.usage()) + b"}\n\n"


class CompletionReply(ChatReply):
    """`/v1/completions`."""

    id_prefix = "cmpl-"
    _object = _chunk_object = "text_completion"

    def opening(self) -> bytes:
        return b""

    def delta(self, position: int) -> bytes:
        after = b',"logprobs":null,"finish_reason":null}]}\n\n'
        return b"".join(
            before + b'"text":' + orjson.dumps(tokens[position]) + after
            for before, tokens in zip(self._before, self.choices, strict=True)
        )

    def closing(self) -> bytes:
        reason = b'"text":"","logprobs":null,"finish_reason":"%b"}]}\n\n' % self._ask.finish.encode()
        return b"".join(before + reason for before in self._before) + self._usage_chunk() + DONE

    def _add_prompt_logprobs(self, document: dict[str, Any]) -> None:
        for index, choice in enumerate(document["choices"]):
            choice["prompt_logprobs"] = self._prompt_logprobs(index)

    def _whole(self, text: str) -> dict[str, Any]:
        return {"text": text}


class ResponsesReply(Reply):
    """`/v1/responses`. Its events are named and numbered, and end without `[DONE]`."""

    id_prefix = "resp_"

    def document(self) -> dict[str, Any]:
        return self.state("completed")

    def state(self, status: str) -> dict[str, Any]:
        """Return the response object: without output or usage while `in_progress`."""
        is_done = status == "completed"
        return {
            "id": self.id,
            "object": "response",
            "created_at": self._created,
            "status": status,
            "model": self._model,
            "output": [self._message("completed")] if is_done else [],
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "metadata": {"engine": self._engine},
            "usage": self._response_usage() if is_done else None,
        } | ({} if self.kv_transfer_params is None else {"kv_transfer_params": self.kv_transfer_params})

    def opening(self) -> bytes:
        part = {"type": "output_text", "text": "", "annotations": []}
        return (
            self._event("response.created", 0, {"response": self.state("in_progress")})
            + self._event("response.in_progress", 1, {"response": self.state("in_progress")})
            + self._event("response.output_item.added", 2, {"output_index": 0, "item": self._message("in_progress")})
            + self._event("response.content_part.added", 3, self._place() | {"part": part})
        )

    def delta(self, position: int) -> bytes:
        place = self._place() | {"delta": self.choices[0][position], "logprobs": []}
        return self._event("response.output_text.delta", 4 + position, place)

    def closing(self) -> bytes:
        number = 4 + self.tokens
        text = self._texts()[0]
        part = {"type": "output_text", "text": text, "annotations": []}
        item = {"output_index": 0, "item": self._message("completed")}
        return (
            self._event("response.output_text.done", number, self._place() | {"text": text, "logprobs": []})
            + self._event("response.content_part.done", number + 1, self._place() | {"part": part})
            + self._event("response.output_item.done", number + 2, item)
            + self._event("response.completed", number + 3, {"response": self.state("completed")})
        )

    def _message(self, status: str) -> dict[str, Any]:
        text = {"type": "output_text", "text": self._texts()[0], "annotations": []}
        content = [text] if status == "completed" else []
        return {
            "id": "msg_" + self.id.removeprefix(self.id_prefix),
            "type": "message",
            "role": "assistant",
            "status": status,
            "content": content,
        }

    def _place(self) -> dict[str, Any]:
        return {"item_id": "msg_" + self.id.removeprefix(self.id_prefix), "output_index": 0, "content_index": 0}

    def _response_usage(self) -> dict[str, Any]:
        return {
            "input_tokens": self.prompt_tokens,
            "input_tokens_details": {"cached_tokens": self.cached_tokens},
            "output_tokens": self.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": self.prompt_tokens + self.completion_tokens,
        }

    def _event(self, name: str, number: int, fields: dict[str, Any]) -> bytes:
        return named_event(name, {"type": name, "sequence_number": number} | fields)


class MessagesReply(Reply):
    """`/v1/messages`, the Anthropic shape."""

    id_prefix = "msg_"

    def document(self) -> dict[str, Any]:
        content = [{"type": "text", "text": self._texts()[0]}]
        return self._message(content, self._stop_reason(), self.completion_tokens)

    def opening(self) -> bytes:
        block = {"index": 0, "content_block": {"type": "text", "text": ""}}
        return self._event("message_start", {"message": self._message([], None, 0)}) + self._event(
            "content_block_start", block
        )

    def delta(self, position: int) -> bytes:
        text = {"type": "text_delta", "text": self.choices[0][position]}
        return self._event("content_block_delta", {"index": 0, "delta": text})

    def closing(self) -> bytes:
        end = {"stop_reason": self._stop_reason(), "stop_sequence": None}
        return (
            self._event("content_block_stop", {"index": 0})
            + self._event("message_delta", {"delta": end, "usage": self._message_usage(self.completion_tokens)})
            + self._event("message_stop", {})
        )

    def _message(self, content: list[dict[str, Any]], stop_reason: str | None, tokens: int) -> dict[str, Any]:
        return {
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": content,
            "stop_reason": stop_reason,
            "stop_sequence": None,
            "usage": self._message_usage(tokens),
        }

    def _message_usage(self, tokens: int) -> dict[str, Any]:
        return {
            "input_tokens": self.prompt_tokens - self.cached_tokens,
            "cache_read_input_tokens": self.cached_tokens,
            "output_tokens": tokens,
        }

    def _stop_reason(self) -> str:
        return "max_tokens" if self._ask.finish == "length" else "end_turn"

    def _event(self, name: str, fields: dict[str, Any]) -> bytes:
        return named_event(name, {"type": name} | fields)


class GenerateReply(Reply):
    """`/generate`, the SGLang shape: each event repeats the text so far; a batch is a list of documents."""

    def document(self) -> Any:
        documents = [self._state(index, self.tokens) for index in range(len(self.choices))]
        return documents if len(documents) > 1 else documents[0]

    def opening(self) -> bytes:
        return b""

    def delta(self, position: int) -> bytes:
        return b"".join(
            b"data: " + orjson.dumps(self._state(index, position + 1)) + b"\n\n" for index in range(len(self.choices))
        )

    def closing(self) -> bytes:
        return DONE

    def _state(self, index: int, count: int) -> dict[str, Any]:
        reason = None
        if count == self.tokens:
            is_cut = self._ask.finish == "length"
            reason = {"type": "length", "length": count} if is_cut else {"type": "stop", "matched": 2}
        state: dict[str, Any] = {
            "text": "".join(self.choices[index][:count]),
            "meta_info": {
                "id": self.id,
                "finish_reason": reason,
                "prompt_tokens": self.prompt_tokens,
                "completion_tokens": count,
                "cached_tokens": self.cached_tokens,
                "engine": self._engine,
            },
        }
        start = self._ask.logprob_start
        if start is not None:
            known = input_token_logprobs(self._prompt(index), start) if self.knows_prompt else []
            state["meta_info"]["input_token_logprobs"] = known
            state["meta_info"]["output_token_logprobs"] = output_token_logprobs(self.choices[index][:count])
        return state | {"index": index} if len(self.choices) > 1 else state


REPLIES: dict[str, type[Reply]] = {
    "/v1/chat/completions": ChatReply,
    "/v1/completions": CompletionReply,
    "/v1/responses": ResponsesReply,
    "/v1/messages": MessagesReply,
    "/generate": GenerateReply,
}
