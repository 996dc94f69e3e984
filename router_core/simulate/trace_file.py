"""Traces in files: one JSON object a line, plain or gzip."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any

import orjson

from router_core.contract.errors import StartupError
from router_core.simulate.trace import Trace, TraceRequest

DEFAULT_BLOCK_TOKENS = 512
_GZIP_MAGIC = b"\x1f\x8b"
_MOST_TOKENS = 10_000_000
_MOST_MS = 10**14
_BLOCKS_END = 2**62


def read_trace(path: str | os.PathLike[str], *, block_tokens: int | None = None, requests: int | None = None) -> Trace:
    """Read a trace.

    The block size comes from a first line `{"block_size": ...}`, else from the file beside it with the ending
    `.meta.json`, else it is `block_tokens`, else 512. Turns with `think_ms` make it a closed loop.

    Args:
        path: The file; gzip is recognised by its content.
        block_tokens: Tokens in a block of `hash_ids`, if the trace does not tell.
        requests: Read no more than this many.

    Raises:
        StartupError: The file, or a line of it, cannot be used; says which and why.
    """
    path = Path(path)
    read: list[tuple[TraceRequest, int]] = []
    try:
        with open_text(path) as lines:
            head, rows = _split_head(path, lines)
            block_tokens = _block_tokens(path, head, block_tokens)
            checks = _Checks()
            for number, row in islice(rows, requests):
                read.append(_request(row, path, number, block_tokens))
                checks.take(*read[-1], has_turn="turn" in row, number=number, path=path)
    except (OSError, EOFError) as error:
        reason = getattr(error, "strerror", None) or error
        raise StartupError([f"{path}: cannot be read: {reason}; give a trace in JSON lines, plain or gzip"]) from error
    if not read:
        raise StartupError([f"{path}: has no requests; give one JSON object a line"])
    is_closed_loop = any(request.think_s > 0 for request, _ in read)
    read.sort(key=lambda each: (each[0].at_s, each[1]))
    name = path.name.removesuffix(".gz").removesuffix(".jsonl")
    return Trace(name, block_tokens, tuple(request for request, _ in read), is_closed_loop)


def write_trace(trace: Trace, path: str | os.PathLike[str]) -> None:
    """Write a trace, gzipped if the file's name ends in `.gz`; the same trace gives the same bytes."""
    turns: dict[str, int] = {}
    with _open_to_write(Path(path)) as file:
        file.write(orjson.dumps({"block_size": trace.block_tokens}) + b"\n")
        for request in trace.requests:
            row: dict[str, Any] = {
                "timestamp": round(request.at_s * 1e3, 3),
                "input_length": request.prompt_tokens,
                "output_length": request.output_tokens,
                "hash_ids": request.blocks,
            }
            if request.session is not None:
                row["session_id"] = request.session
                row["turn"] = turns[request.session] = turns.get(request.session, -1) + 1
                row["think_ms"] = round(request.think_s * 1e3, 3)
            if request.user is not None:
                row["user"] = request.user
            if request.headers:
                row["headers"] = dict(request.headers)
            file.write(orjson.dumps(row) + b"\n")


def open_text(path: Path) -> IO[bytes]:
    """Open a plain or gzipped file to read its lines."""
    with path.open("rb") as probe:
        is_gzip = probe.read(2) == _GZIP_MAGIC
    return gzip.open(path, "rb") if is_gzip else path.open("rb")  # type: ignore[return-value]  # a GzipFile reads alike


@contextmanager
def _open_to_write(path: Path) -> Iterator[IO[bytes]]:
    with path.open("wb") as file:
        if path.suffix != ".gz":
            yield file
            return
        with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:  # neither name nor time in its header
            yield packed  # type: ignore[misc]  # it writes alike


_Row = dict[str, Any]  # Any: a stranger's JSON


class _Checks:
    """What one line may not say because of the lines before it."""

    def __init__(self) -> None:
        self._parents: dict[int, int] = {}
        self._turns: dict[tuple[str, int], int] = {}

    def take(self, request: TraceRequest, turn: int, *, has_turn: bool, number: int, path: Path) -> None:
        """Check a request.

        Raises:
            StartupError: A block follows another one than before, or the session's turn was there already.
        """
        before, parents = -1, self._parents
        for block in request.blocks:
            if parents.setdefault(block, before) != before:
                raise StartupError([f"{path}:{number}: hash_ids: {self._unchained(request, block, before)}"])
            before = block
        if request.session is not None and has_turn:
            line = self._turns.setdefault((request.session, turn), number)
            if line != number:
                what = f"session_id {request.session!r} has a turn {turn} on line {line} already"
                raise StartupError([f"{path}:{number}: turn: {what}; number a session's turns from 0"])

    def _unchained(self, request: TraceRequest, block: int, before: int) -> str:
        if request.blocks.count(block) > 1:
            return f"{block} stands twice; give each block of a prompt an id of its own"
        other, here = (
            "at the start of a prompt" if parent < 0 else f"behind {parent}"
            for parent in (self._parents[block], before)
        )
        remedy = "an id stands for all that is before it, too: make it depend on that"
        return f"{block} stands {here}, but {other} on a line before; {remedy}"


def _split_head(path: Path, lines: IO[bytes]) -> tuple[_Row, Iterator[tuple[int, _Row]]]:
    rows = _rows(path, lines)
    first = next(rows, None)
    if first is None:
        return {}, iter(())
    if "block_size" in first[1] and "input_length" not in first[1]:
        return first[1], rows

    def again() -> Iterator[tuple[int, _Row]]:
        yield first
        yield from rows

    return {}, again()


def _rows(path: Path, lines: IO[bytes]) -> Iterator[tuple[int, _Row]]:
    for number, line in enumerate(lines, start=1):
        if line.isspace():
            continue
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise StartupError([f"{path}:{number}: is no JSON ({error}); write one JSON object a line"]) from error
        if not isinstance(row, dict):
            raise StartupError([f"{path}:{number}: is no JSON object; write one a line"])
        yield number, row


def _block_tokens(path: Path, head: _Row, given: int | None) -> int:
    place = f"{path}:1"
    size: object = head.get("block_size")
    if size is None:
        stem = path.name.removesuffix(".gz").removesuffix(".jsonl")
        beside = path.with_name(f"{stem}.meta.json")
        place = str(beside)
        if beside.exists():
            try:
                size = orjson.loads(beside.read_bytes()).get("block_size")
            except (orjson.JSONDecodeError, AttributeError) as error:
                raise StartupError([f"{beside}: is no JSON object; mend or remove it"]) from error
    if size is None:
        return DEFAULT_BLOCK_TOKENS if given is None else given
    if not isinstance(size, int) or size < 1:
        raise StartupError([f"{place}: block_size: {size!r} is no whole number above 0; give the tokens in a block"])
    if given not in (None, size):
        raise StartupError(
            [
                f"{place}: block_size: the trace has blocks of {size:,} tokens, not of {given:,} (--block-tokens); "
                "leave the flag out, or make them larger with router-core trace convert"
            ]
        )
    return size


def _request(row: _Row, path: Path, number: int, block_tokens: int) -> tuple[TraceRequest, int]:
    def figure(name: str, *, least: float, default: float | None = None, most: float = _MOST_MS) -> float:
        value = row.get(name, default)
        if value is None:
            raise StartupError([f"{path}:{number}: {name} is missing; give a number"])
        if not isinstance(value, int | float) or isinstance(value, bool) or not value >= least:
            raise StartupError(
                [f"{path}:{number}: {name}: {value!r} is no number of at least {least:g}; mend the line"]
            )
        if value > most:
            raise StartupError([f"{path}:{number}: {name}: {value!r} is more than {most:,}; mend the line"])
        return value

    prompt_tokens = max(1, int(figure("input_length", least=0, most=_MOST_TOKENS)))
    session, user = row.get("session_id"), row.get("user", row.get("client"))
    request = TraceRequest(
        at_s=figure("timestamp", least=0) / 1e3,
        prompt_tokens=prompt_tokens,
        output_tokens=max(1, int(figure("output_length", least=0, most=_MOST_TOKENS))),
        blocks=_blocks(row.get("hash_ids"), f"{path}:{number}", prompt_tokens, block_tokens),
        session=None if session is None else str(session),
        think_s=figure("think_ms", least=0, default=0) / 1e3,
        user=None if user is None else str(user),
        headers=_headers(row["headers"], path, number) if "headers" in row else (),
    )
    return request, int(figure("turn", least=0, default=0))


def _blocks(given: object, place: str, prompt_tokens: int, block_tokens: int) -> tuple[int, ...]:
    if given is None:
        raise StartupError([f"{place}: hash_ids is missing; give the ids of the prompt's blocks, [] if none is shared"])
    if not isinstance(given, list) or not all(type(block) is int for block in given):
        raise StartupError([f"{place}: hash_ids is no list of whole numbers; mend the line"])
    for block in (min(given), max(given)) if given else ():
        if not 0 <= block < _BLOCKS_END:
            raise StartupError([f"{place}: hash_ids: {block} is not from 0 to below 2^62; mend the line"])
    if len(given) > -(-prompt_tokens // block_tokens):
        raise StartupError(
            [
                f"{place}: hash_ids: {len(given):,} blocks of {block_tokens:,} tokens are more than {prompt_tokens:,} "
                "tokens fill; mend the line, or tell the block size (--block-tokens)"
            ]
        )
    return tuple(given)


def _headers(given: object, path: Path, number: int) -> tuple[tuple[str, str], ...]:
    if not isinstance(given, dict) or not all(isinstance(value, str) for value in given.values()):
        raise StartupError([f"{path}:{number}: headers is no object of texts; mend the line"])
    return tuple((name.lower(), value) for name, value in given.items())
