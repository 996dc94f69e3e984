"""Changes of a JSON body that leave the rest of its bytes alone. Knows JSON's form, nothing of what is in it."""

from __future__ import annotations

import re
from collections.abc import Collection

import orjson

from router_core.relay.call import Pieces

_SPACE = b" \t\r\n"
_STRING = rb'"[^"\\]*(?:\\.[^"\\]*)*"'
_TOP = re.compile(_STRING + rb"|[{}\[\]:,]", re.DOTALL)
_INSIDE = re.compile(_STRING + rb"|[{}\[\]]", re.DOTALL)
_STRING_MEMBER = re.compile(rb"\s*" + _STRING + rb"\s*:\s*(" + _STRING + rb")\s*", re.DOTALL)


def append_members(body: bytes, members: bytes) -> Pieces | None:
    """Return a body with further members at its end, in pieces: the original's bytes, all of them, and the insertion.

    They stand last because of a key that stands twice every engine takes the last: what a client writes under the same
    name cannot override them.

    Args:
        body: A JSON object.
        members: `"a":1,"b":2`, without braces.

    Returns:
        None if the body is no JSON object at first sight. What is wrong inside is for the engine to say.
    """
    close = _last(body, len(body))
    first = next((at for at, byte in enumerate(body[:4096]) if byte not in _SPACE), 0)
    if close <= first or body[close] != 0x7D or body[first] != 0x7B:
        return None
    comma = b"" if _last(body, close) == first else b","
    view = memoryview(body)
    return view[:close], comma + members, view[close:]


def replace_members(body: bytes, remove: Collection[str], members: bytes) -> bytes | None:
    """Return a copy of a JSON object without some members, and with others at its end; None if it is no object.

    Args:
        body: A JSON object.
        remove: Keys at the top level; each that stands there goes, however often and however it is escaped.
        members: `"a":1,"b":2`, without braces.
    """
    found = _top_members(body)
    if found is None:
        return None
    kept = [body[begin:end].strip(_SPACE) for key, begin, end in found if key not in remove]
    return b"{" + b",".join([*kept, members]) + b"}"


def replace_string(body: bytes, key: str, value: str) -> bytes | None:
    """Return a copy of a JSON object with another text as the value of a key, every other byte as it was.

    Of a key that stands twice the last one counts, as it does for engines.

    Args:
        body: A JSON object.
        key: A key at the top level.
        value: Its new value.

    Returns:
        None if the body is no object, or has no text under this key.
    """
    for found, begin, end in reversed(_top_members(body) or ()):
        if found == key:
            member = _STRING_MEMBER.fullmatch(body, begin, end)
            return None if member is None else body[: member.start(1)] + orjson.dumps(value) + body[member.end(1) :]
    return None


def _last(body: bytes, end: int) -> int:
    """Return the index of the last byte before `end` that is no white space, -1 if there is none."""
    end -= 1
    while end >= 0 and body[end] in _SPACE:
        end -= 1
    return end


def _top_members(body: bytes) -> list[tuple[str, int, int]] | None:
    """Return the key of each member of the outermost object, and where it begins and ends, white space included."""
    found: list[tuple[str, int, int]] = []
    depth, position, begun = 0, 0, 0
    key: str | None = None
    while True:
        match = (_TOP if depth < 2 else _INSIDE).search(body, position)
        if match is None:
            return None
        token, position = match[0], match.end()
        opener = token[:1]
        if depth == 0 and opener != b"{":
            return None
        if opener in b"{[":
            depth += 1
            if depth == 1:
                begun = position
        elif opener in b"}]":
            depth -= 1
        elif opener == b'"' and depth == 1 and key is None:
            try:
                key = orjson.loads(token)
            except orjson.JSONDecodeError:
                return None
        if depth == 0 or (depth == 1 and opener == b","):
            if key is not None:
                found.append((key, begun, match.start()))
            key, begun = None, position
            if depth == 0:
                return None if body[position:].strip(_SPACE) else found
