"""A progress bar on standard error: one line, drawn over and over, and nothing at all where nobody looks."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TextIO

_WIDTH = 30
_EVERY_S = 0.1


class ProgressBar:
    """Shows how far something is, and how long it may still take; only on a terminal."""

    def __init__(self, what: str, stream: TextIO | None = None) -> None:
        self._what = what
        self._stream = sys.stderr if stream is None else stream
        self._is_shown = self._stream.isatty()
        self._began = time.monotonic()
        self._drawn = 0.0

    def __enter__(self) -> ProgressBar:
        self(0.0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._is_shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def __call__(self, share: float) -> None:
        """Say how much is done, 0 to 1."""
        now = time.monotonic()
        if not self._is_shown or (now - self._drawn < _EVERY_S and share < 1):
            return
        self._drawn = now
        full = round(share * _WIDTH)
        elapsed = now - self._began
        left = f", {elapsed / share - elapsed:.0f} s left" if share > 0.02 else ""
        bar = "#" * full + "-" * (_WIDTH - full)
        self._stream.write(f"\r\x1b[K{self._what} [{bar}] {share * 100:3.0f} %{left}")
        self._stream.flush()
