"""The model a request names: found in its body, and replaced there with all other bytes left alone."""

from __future__ import annotations

import re

from router_core.relay.request_head import RequestHead
from router_core.traffic.body_prompt import BodyPrompt
from router_core.traffic.json_edit import replace_string

_FORM = b"multipart/form-data"
_FORM_FIELD = re.compile(rb'name="?model"?(?:;[^\r\n]*)?\r\n(?:[^\r\n]+\r\n)*\r\n([^\r\n]{1,1024})\r\n')


def is_form(head: RequestHead) -> bool:
    """Return whether a body is a form of several parts (transcriptions)."""
    return head.fields.get(b"content-type", b"").lower().startswith(_FORM)


def named_model(head: RequestHead, body: bytes, prompt: BodyPrompt) -> str | None:
    """Return the model of a JSON body or of a form (transcriptions), None if it names none."""
    if is_form(head):
        field = _FORM_FIELD.search(body)
        return None if field is None else field[1].decode("utf-8", "replace")
    return prompt.model


def with_model(head: RequestHead, body: bytes, model: str) -> bytes:
    """Return a body that names another model; one that names none, or not in a way that can be replaced, as it is."""
    if is_form(head):
        field = _FORM_FIELD.search(body)
        return body if field is None else body[: field.start(1)] + model.encode() + body[field.end(1) :]
    return replace_string(body, "model", model) or body
