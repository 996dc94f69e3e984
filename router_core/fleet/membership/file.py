"""Workers that stand in a YAML or JSON file, which may be changed while the router runs.

The file is all or nothing: while it is missing, half written or wrong anywhere, the last good list stays.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

import orjson
import yaml
from pydantic import Field, ValidationError

from router_core.contract.errors import StartupError
from router_core.contract.membership import Report, WorkerSpec
from router_core.contract.policy import PolicyConfig
from router_core.fleet.membership.entries import worker_entries

log = logging.getLogger(__name__)

_UNSETTLED_NS = 2_000_000_000
"""A file changed this recently may change again without its time stamp telling; coarse file systems count seconds."""

_SENTENCES = 3  # more would say the same again

_Signature = tuple[int, int, int, int]


class FileMembership:
    """Reports the workers listed in a file, and follows its changes.

    Args:
        config: The options.
        sleep: Waits between two looks at the file.
        wall_clock_ns: Tells how old the file's time stamp is.
    """

    class Config(PolicyConfig):
        """Options of the source `file`."""

        path: Path
        """The file: a list in JSON if its name ends in `.json`, else in YAML; items as in the source `static`."""

        poll_interval_s: Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)] = 1.0
        """Seconds between two looks at the file."""

        must_exist: bool = True
        """Whether a file that is missing at start is an error; if not, there are no workers until it appears."""

    def __init__(
        self,
        config: Config,
        *,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        wall_clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.max_silence_s = 10 * config.poll_interval_s + 30
        self._config = config
        self._sleep = sleep
        self._wall_clock_ns = wall_clock_ns
        self._signature: _Signature | None = None
        self._is_settled = False
        self._content: bytes | None = None
        self._complaint: str | None = None

    async def run(self, report: Report) -> None:
        """Report the file's list and follow its changes.

        Raises:
            StartupError: If the file is there and wrong when the router starts, or missing and `must_exist` is set.
        """
        listed: tuple[WorkerSpec, ...] = ()
        try:
            listed = await self._look() or listed
            report(listed)
        except FileNotFoundError as error:
            if self._config.must_exist:
                raise StartupError(
                    [f"membership file {self._config.path}: is not there; create it, or set must_exist: false"]
                ) from error
            self._complain("is not there yet; the router has no workers from it until it is")
            report(listed)
        except (OSError, _InvalidFileError) as error:
            raise StartupError([f"membership file {self._config.path}: {_reason(error)}"]) from error
        while True:
            await self._sleep(self._config.poll_interval_s)
            try:
                specs = await self._look()
            except (OSError, _InvalidFileError) as error:
                self._complain(f"{_reason(error)}; the last good list stays")
                continue
            if specs is not None:
                log.info("membership file %s: lists %d workers", self._config.path, len(specs))
                listed = specs
            if self._complaint is None:
                report(listed)

    async def _look(self) -> tuple[WorkerSpec, ...] | None:
        """Return the file's list if the file has changed since the last look, else None."""
        content = await asyncio.to_thread(self._read_if_changed)  # a file system may hang
        if content is None or (content == self._content and self._complaint is None):
            return None
        specs = await asyncio.to_thread(_parse, self._config.path, content)  # of a thousand workers it takes long
        self._complaint = None
        is_new = content != self._content
        self._content = content
        return specs if is_new else None

    def _read_if_changed(self) -> bytes | None:
        path = self._config.path
        try:
            before = path.stat()
            if _signature(before) == self._signature and self._is_settled:
                return None
            content = path.read_bytes()
            after = _signature(path.stat())
        except OSError:
            self._signature = None
            raise
        # A signature is trusted if nothing happened while the file was read and its time stamp has grown old.
        self._is_settled = self._wall_clock_ns() - before.st_mtime_ns > _UNSETTLED_NS
        self._signature = after if after == _signature(before) else None
        return content

    def _complain(self, sentence: str) -> None:
        """Log what is wrong with the file, once as long as it stays the same."""
        if sentence != self._complaint:
            self._complaint = sentence
            log.warning("membership file %s: %s", self._config.path, sentence)


class _InvalidFileError(Exception):
    """The file does not hold a list of workers."""


def _signature(status: os.stat_result) -> _Signature:
    return status.st_mtime_ns, status.st_size, status.st_ino, status.st_dev


def _parse(path: Path, content: bytes) -> tuple[WorkerSpec, ...]:
    if not content.strip():  # what a writer leaves between truncating and writing, not what one means
        raise _InvalidFileError("is empty; write [] if there are no workers")
    try:
        listed: Any = orjson.loads(content) if path.suffix == ".json" else yaml.safe_load(content)  # checked below
    except orjson.JSONDecodeError as error:
        raise _InvalidFileError(f"is not JSON: {error}; correct it") from error
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
        # PyYAML raises not only errors of its own: for a date that is none, `!!float ''`, `!!timestamp x`.
        raise _InvalidFileError(f"is not YAML: {' '.join(str(error).split())}; correct it") from error
    try:
        return tuple(entry.to_spec() for entry in worker_entries.validate_python(listed))
    except ValidationError as error:
        sentences = _sentences(error)
        if len(sentences) > _SENTENCES:
            sentences[_SENTENCES:] = [f"and {len(sentences) - _SENTENCES} more"]
        raise _InvalidFileError("; ".join(sentences)) from error


def _sentences(error: ValidationError) -> list[str]:
    sentences = []
    for problem in error.errors(include_url=False):
        place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in problem["loc"])
        is_unknown = problem["type"] == "extra_forbidden"
        message = "is unknown; remove it" if is_unknown else problem["msg"].removeprefix("Value error, ")
        sentences.append(f"{place.removeprefix('.')}: {message}" if place else message)
    return sentences


def _reason(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
