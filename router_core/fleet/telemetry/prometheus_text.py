"""A few series out of a Prometheus exposition, without reading the rest of it. No I/O.

A big engine's `/metrics` is 200 KB and more, nearly all of it histograms; the general parser takes tens of milliseconds
for it, in the loop that relays tokens. Searching for the names wanted takes well under one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

_LONGEST_LINE = 8192
_SAMPLE = re.compile(rb'(?:\{((?:\s*[a-zA-Z_]\w*="(?:[^"\\]|\\.)*",?)*)\s*\})?[ \t]+(\S+)')
_LABEL = re.compile(rb'([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"')


class Sample(NamedTuple):
    """One series' labels and value. Label values keep their escapes: they are compared, not shown."""

    labels: Mapping[str, str]
    value: float


def samples(exposition: bytes, name: str) -> Iterator[Sample]:
    """Yield every sample of one metric; lines that make no sense and values that are no numbers are left out.

    Args:
        exposition: The text as it came.
        name: The metric's full name; series whose names only begin with it are not meant.
    """
    wanted = name.encode()
    start = exposition.find(wanted)
    while start >= 0:
        end = start + len(wanted)
        if start == 0 or exposition[start - 1] == 0x0A:
            line_end = _line_end(exposition, end)
            found = _SAMPLE.match(exposition, end, line_end) if line_end - end <= _LONGEST_LINE else None
            value = _number(found.group(2)) if found else None
            if found and value is not None:
                yield Sample(_labels(found.group(1)), value)
        start = exposition.find(wanted, end)


def _line_end(exposition: bytes, start: int) -> int:
    end = exposition.find(b"\n", start)
    return len(exposition) if end < 0 else end


def _labels(text: bytes | None) -> dict[str, str]:
    return {name.decode(): value.decode(errors="replace") for name, value in _LABEL.findall(text or b"")}


def _number(text: bytes) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
