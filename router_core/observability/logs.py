"""Logging: the standard library's, to standard error, one line a record."""

from __future__ import annotations

import json
import logging
import sys
from datetime import datetime
from typing import Literal


def configure_logging(level: str = "info", log_format: Literal["text", "json"] = "text") -> None:
    """Log everything at `level` and above to standard error. Calling it again replaces what it set up before.

    The access log of the aiohttp application stays off: a line for every probe helps nobody.

    Args:
        level: A level's name in any case, such as `info`.
        log_format: How a record is written.

    Raises:
        ValueError: If there is no such level.
    """
    set_log_level(level)
    handler = _StderrHandler(sys.stderr)
    if log_format == "json":
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(OneLineFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    for earlier in [each for each in root.handlers if isinstance(each, _StderrHandler)]:
        root.removeHandler(earlier)
    root.addHandler(handler)


def set_log_level(level: str) -> None:
    """Change the least level of what is logged, at any time.

    Args:
        level: A level's name in any case, such as `debug`.

    Raises:
        ValueError: If there is no such level; nothing has changed.
    """
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        known = ", ".join(name.lower() for name in logging.getLevelNamesMapping() if name not in _ODD_LEVELS)
        raise ValueError(f"log level {level!r} is unknown; use one of {known}")
    logging.getLogger().setLevel(number)
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    logging.getLogger("asyncio").setLevel(max(number, logging.INFO))


def log_level() -> str:
    """Return the least level of what is logged."""
    return logging.getLevelName(logging.getLogger().level).lower()


_ODD_LEVELS = frozenset({"NOTSET", "WARN", "FATAL"})


class OneLineFormatter(logging.Formatter):
    """Writes ISO 8601 times with the offset, and a record with its traceback as one line.

    A line break inside a record becomes ` | `: collectors keep a traceback together, and text that came from a client
    cannot pose as a record of its own.
    """

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802, ARG002
        """Return the record's time in ISO 8601."""
        return datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds")

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        return " | ".join(line for line in super().format(record).splitlines() if line.strip())


class JsonFormatter(logging.Formatter):
    """Writes a record as one JSON object on one line: `time`, `level`, `logger`, `message` and more.

    A record with a mapping `fields` (see `logging`'s `extra`) gives its items; a traceback is in `exception`.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update(getattr(record, "fields", {}))
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)  # ASCII: lone surrogates and line separators are escaped


class _StderrHandler(logging.StreamHandler):  # type: ignore[type-arg]  # not subscriptable at run time in 3.11
    """Told apart from the handlers of a host that embeds the router, which are left alone."""
