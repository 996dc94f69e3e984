"""Other people's traces turned into ours. Each reader takes paths and gives a trace; nothing is downloaded here.

What is not known is made up in one way only, by a seed: when sessions start, and where in a coarse tick requests lie.
"""

from __future__ import annotations

import csv
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import orjson

from router_core.contract.errors import StartupError
from router_core.simulate.trace import Trace, TraceRequest
from router_core.simulate.trace_file import read_trace

_TIME = ("timestamp", "time", "arrived_at", "arrival_time")
_INPUT = ("request tokens", "contexttokens", "input_length", "input_tokens", "prompt_tokens", "num_prefill_tokens")
_OUTPUT = ("response tokens", "generatedtokens", "output_length", "output_tokens", "completion_tokens")
_SESSION = ("session id", "session_id")
_MAX_CONTEXT = 128_000


def from_mooncake(paths: Sequence[Path], *, seed: int, tick_s: float) -> Trace:
    """Read JSON lines such as Mooncake's; `tick_s` spreads requests over the tick their time was rounded to.

    They keep their order: who continues another one's prompt does not come before it.
    """
    if len(paths) != 1:
        raise StartupError(["--from mooncake takes one file; convert the others one by one"])
    trace = read_trace(paths[0])
    if not tick_s:
        return trace
    shift = random.Random(f"tick/{seed}").uniform  # noqa: S311  # repeatable, not secret
    times = sorted(request.at_s + shift(0, tick_s) for request in trace.requests)
    spread = (replace(request, at_s=at_s) for request, at_s in zip(trace.requests, times, strict=True))
    return replace(trace, requests=tuple(spread))


def from_csv(paths: Sequence[Path], *, seed: int, tick_s: float) -> Trace:
    """Read CSV with a time, input and output column each, such as BurstGPT's and Azure's: lengths, but no prefixes.

    Times are seconds, or dates. Columns go by their usual names.
    """
    del seed, tick_s
    requests: list[TraceRequest] = []
    for path in paths:
        try:
            with path.open(newline="", encoding="utf-8-sig") as file:
                rows = csv.DictReader(file)
                columns = {(name or "").strip().lower(): name for name in rows.fieldnames or ()}
                at, tokens, out = (_column(path, columns, names) for names in (_TIME, _INPUT, _OUTPUT))
                session = next((columns[name] for name in _SESSION if name in columns), None)
                for number, row in enumerate(rows, start=2):
                    requests.append(
                        _csv_request(path, number, row[at], row[tokens], row[out], session and row[session])
                    )
        except OSError as error:
            raise StartupError([f"{path}: cannot be read: {error.strerror}; give a CSV file"]) from error
    if not requests:
        raise StartupError([f"{paths[0]}: has no requests"])
    requests.sort(key=lambda request: request.at_s)
    first_s = requests[0].at_s
    return Trace(_name(paths), 512, tuple(replace(request, at_s=request.at_s - first_s) for request in requests))


def from_sessions(paths: Sequence[Path], *, seed: int, tick_s: float) -> Trace:
    """Read agent sessions, one JSON file each, as in kv-cache-tester; folders stand for all `*.json` in them.

    Block ids are a session's own there, but tools and system prompt are taken to be shared by sessions with an equal
    model and equal lengths of both. Sub-agents are left out; a session ends where its context passes 128,000 tokens.
    Sessions start at random, one a minute on average; `--rate` of the simulator changes that.
    """
    del tick_s
    starts = random.Random(f"starts/{seed}")  # noqa: S311  # repeatable, not secret
    files = [file for path in paths for file in (sorted(path.glob("*.json")) if path.is_dir() else [path])]
    ids: dict[tuple[object, ...], int] = {}
    requests: list[TraceRequest] = []
    block_tokens, start_s = 0, 0.0
    for number, file in enumerate(files):
        session = _load(file)
        size = session.get("block_size", 64)
        if block_tokens and size != block_tokens:
            raise StartupError([f"{file}: block_size {size} is unlike {block_tokens} of the others; convert it apart"])
        block_tokens = size
        turns = _turns(file, session, number, ids)
        requests += [replace(turn, at_s=start_s + turn.at_s) for turn in turns]
        start_s += starts.expovariate(1 / 60)
    if not requests:
        raise StartupError([f"{paths[0]}: has no sessions; give JSON files, or a folder of them"])
    requests.sort(key=lambda request: request.at_s)
    return Trace(_name(paths), block_tokens, tuple(requests), is_closed_loop=True)


def regroup(trace: Trace, block_tokens: int) -> Trace:
    """Return the same trace in larger blocks, which are quicker to simulate; a multiple of the present size.

    Raises:
        StartupError: It is no multiple.
    """
    times, rest = divmod(block_tokens, trace.block_tokens)
    if rest or not times:
        size = trace.block_tokens
        problem = f"{block_tokens} is no multiple of the trace's {size}; give {size}, {2 * size} or another one"
        raise StartupError([f"--block-tokens: {problem}"])
    if times == 1:
        return trace
    ids: dict[int, int] = {}
    # A chained id stands for all before it, so the last of a group stands for the group.
    regrouped = [
        replace(request, blocks=tuple(ids.setdefault(last, len(ids)) for last in request.blocks[times - 1 :: times]))
        for request in trace.requests
    ]
    return Trace(trace.name, block_tokens, tuple(regrouped), trace.is_closed_loop)


Reader = Callable[..., Trace]
READERS: Mapping[str, Reader] = MappingProxyType(
    {"mooncake": from_mooncake, "kv-cache-tester": from_sessions, "csv": from_csv}
)
"""The readers by the name of the format."""


def _name(paths: Sequence[Path]) -> str:
    return paths[0].name.removesuffix(".gz").rpartition(".")[0] or paths[0].name


def _column(path: Path, columns: Mapping[str, str], names: Iterable[str]) -> str:
    for name in names:
        if name in columns:
            return columns[name]
    raise StartupError([f"{path}:1: has none of the columns {', '.join(names)}; rename one"])


def _csv_request(path: Path, number: int, at: str, tokens: str, out: str, session: str | None) -> TraceRequest:
    try:
        return TraceRequest(_seconds(at), max(1, int(float(tokens))), max(1, int(float(out))), session=session or None)
    except (TypeError, ValueError) as error:
        raise StartupError([f"{path}:{number}: cannot be read: {error}; mend the line"]) from error


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return datetime.fromisoformat(text.strip()).timestamp()


def _load(file: Path) -> dict[str, Any]:  # Any: a stranger's JSON
    try:
        session = orjson.loads(file.read_bytes())
    except OSError as error:
        raise StartupError([f"{file}: cannot be read: {error.strerror}"]) from error
    except orjson.JSONDecodeError as error:
        raise StartupError([f"{file}: is no JSON ({error})"]) from error
    if not isinstance(session, dict) or not isinstance(session.get("requests"), list):
        raise StartupError([f"{file}: is no session; a JSON object with a list `requests` is wanted"])
    return session


def _turns(file: Path, session: dict[str, Any], number: int, ids: dict[tuple[object, ...], int]) -> list[TraceRequest]:
    name = str(session.get("id", file.stem))
    block_tokens = session.get("block_size", 64)
    tools, system = session.get("tool_tokens", 0), session.get("system_tokens", 0)
    turns: list[TraceRequest] = []
    before: dict[str, Any] | None = None
    for row in session["requests"]:
        if row.get("type") not in (None, "s", "n"):
            continue  # a sub-agent
        try:
            tokens, out, at_s = int(row["in"]), int(row["out"]), float(row["t"])
            hashes = row["hash_ids"]
            think_s = 0.0 if before is None else float(row.get("think_time", max(0.0, at_s - float(before["t"]))))
        except (KeyError, TypeError, ValueError) as error:
            raise StartupError([f"{file}: request {len(turns)}: {error} is missing or no number"]) from error
        if tokens > _MAX_CONTEXT:
            break
        blocks = []
        for place, block in enumerate(hashes[: -(-max(1, tokens) // block_tokens)]):
            end = (place + 1) * block_tokens
            key: tuple[object, ...]
            if end <= tools:
                key = ("tools", row.get("model"), tools, place)
            elif end <= tools + system:
                key = ("system", row.get("model"), tools, system, place)
            else:
                key = (number, row.get("model"), block)
            blocks.append(ids.setdefault(key, len(ids)))
        turns.append(TraceRequest(at_s, max(1, tokens), max(1, out), tuple(blocks), name, think_s))
        before = row
    return turns
