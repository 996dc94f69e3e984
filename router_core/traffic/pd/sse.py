"""Server-sent events, as far as merging two answers needs it."""

from __future__ import annotations

from collections.abc import Callable

_DATA = b"data:"


def map_data(events: bytes, change: Callable[[bytes], bytes | None]) -> bytes:
    """Return events with the JSON of some `data` lines replaced.

    Args:
        events: Whole events.
        change: Given the JSON of a line; None leaves the line as it is.
    """
    lines = events.split(b"\n")
    for number, line in enumerate(lines):
        if line.startswith(_DATA):
            data = line[len(_DATA) :].strip()
            changed = change(data) if data.startswith(b"{") else None
            if changed is not None:
                lines[number] = b"data: " + changed
    return b"\n".join(lines)
