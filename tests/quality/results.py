"""Runs a cell with an entrant, and keeps what came out for as long as the code that made it stays the same."""

from __future__ import annotations

import ast
import hashlib
import importlib
import json
import logging
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path

from cells import SEEDS, Cell, Entrant

from router_core.plugin_host.discovery import load_policy
from router_core.simulate import Slo, Spread, simulate
from router_core.simulate.contender import Contender
from router_core.simulate.summary import figures_of

ROOT = Path(__file__).parents[2]
KEPT = ROOT / ".quality"

_OF_THE_MACHINE = "decision_us"
_DECIDING = (
    "router_core.simulate",
    "router_core.engine_model",
    "router_core.fleet.ledger",
    "router_core.contract.prefix",
    "router_core.policy_kit",
)
"""Modules that, beside a policy's own, decide what comes out; the others carry calls from here to there."""

LEARNED_AFTER = 500
"""Requests after which a policy should know the engines: figures named `..._learned` are of all later ones."""

Told = Callable[[str], None]


@dataclass(frozen=True)
class Result:
    """What an entrant reached in a cell.

    Attributes:
        runs: The figures of each seed, by name.
        faults: What the policy did wrong, in all runs together.
    """

    runs: tuple[Mapping[str, float], ...]
    faults: Mapping[str, int]

    def __getitem__(self, figure: str) -> Spread:
        return Spread.of([run[figure] for run in self.runs])

    def over(self, other: Result, figure: str) -> Spread:
        """Return a figure as a multiple of another entrant's, seed by seed."""
        return Spread.of([mine[figure] / theirs[figure] for mine, theirs in zip(self.runs, other.runs, strict=True)])


Results = Mapping[str, Mapping[str, Result]]
"""By the name of the cell, then by the label of the entrant."""


def results(cells: Iterable[Cell], entrants: Sequence[Entrant], *, jobs: int, again: set[str], told: Told) -> Results:
    """Return the result of each entrant in each cell; what is not kept, or is out of date, is run.

    Args:
        cells: What is simulated.
        entrants: Who takes part.
        jobs: How many runs at a time.
        again: Names of cells that are run even if they are kept.
        told: Told how far it is.
    """
    cells = tuple(cells)
    found: dict[str, dict[str, Result]] = {cell.name: {} for cell in cells}
    missing = []
    for entrant in entrants:
        for cell in filter(entrant.takes_part, cells):
            kept = None if cell.name in again else _kept(cell, entrant)
            if kept is None:
                missing.append((cell, entrant))
            else:
                found[cell.name][entrant.label] = kept
    told(f"{len(missing)} results to be made, {SEEDS} runs each; {sum(map(len, found.values()))} are kept")
    if missing:
        for cell, entrant, result in _made(missing, jobs, told):
            _keep(cell, entrant, result)
            found[cell.name][entrant.label] = result
    return found


# --- running ---


def _made(wanted: Sequence[tuple[Cell, Entrant]], jobs: int, told: Told) -> Iterable[tuple[Cell, Entrant, Result]]:
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        futures: dict[Future[tuple[dict[str, float], dict[str, int]]], tuple[int, int]] = {}
        for place, (cell, entrant) in enumerate(wanted):
            for seed in range(SEEDS):
                futures[pool.submit(_run, cell, entrant, seed)] = place, seed
        done: dict[int, dict[int, tuple[dict[str, float], dict[str, int]]]] = {}
        for future in as_completed(futures):
            place, seed = futures[future]
            cell, entrant = wanted[place]
            seeds = done.setdefault(place, {})
            seeds[seed] = future.result()
            if len(seeds) == SEEDS:
                ordered = [seeds[each] for each in range(SEEDS)]
                faults: dict[str, int] = {}
                for _, each in ordered:
                    for kind, count in each.items():
                        faults[kind] = faults.get(kind, 0) + count
                result = Result(tuple(figures for figures, _ in ordered), faults)
                told(f"{cell.name}: {entrant.label}: p90 TTFT {result['ttft_p90'].mean:.3g} s")
                yield cell, entrant, result


def _run(cell: Cell, entrant: Entrant, seed: int) -> tuple[dict[str, float], dict[str, int]]:
    logging.disable()  # a busy machine makes every policy look slow to the router's watchdog
    record = simulate(cell.scenario(), entrant.contender(cell), seed=seed)
    figures = dict(figures_of(record, slo=Slo(), warm_up=0.1))
    learned = figures_of(record, slo=Slo(), warm_up=LEARNED_AFTER / len(record.requests))
    figures |= {f"{name}_learned": learned[name] for name in ("ttft_p90", "ttft_mean")}
    return {name: value for name, value in figures.items() if name != _OF_THE_MACHINE}, record.faults


# --- keeping ---


def _path(cell: Cell, entrant: Entrant) -> Path:
    return KEPT / cell.name / f"{entrant.label.replace(', ', '-').replace(' ', '-').replace(':', '')}.json"


def _keep(cell: Cell, entrant: Entrant, result: Result) -> None:
    path = _path(cell, entrant)
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {"made_by": _made_by(cell, entrant), "runs": list(result.runs), "faults": result.faults}
    path.write_text(json.dumps(document, indent=1, default=dict))


def _kept(cell: Cell, entrant: Entrant) -> Result | None:
    try:
        document = json.loads(_path(cell, entrant).read_text())
    except (FileNotFoundError, ValueError):
        return None
    if document["made_by"] != _made_by(cell, entrant):
        return None
    return Result(tuple(document["runs"]), document["faults"])


def _made_by(cell: Cell, entrant: Entrant) -> str:
    """Return a digest of the question and of all code that answers it; comments do not count."""
    contender = entrant.contender(cell)
    question = f"{replace(cell, tiers=0)!r} {contender.name} {sorted(contender.options.items())} {SEEDS}"
    return hashlib.sha256((question + _core() + _policy(contender.name)).encode()).hexdigest()


@cache
def _core() -> str:
    importlib.import_module("router_core.api")  # loads what policies use
    return _digest(*_DECIDING)


@cache
def _policy(name: str) -> str:
    return "" if Contender(name).is_yardstick else _digest(load_policy(name).cls.__module__.partition(".")[0])


def _digest(*packages: str) -> str:
    """Return a digest of the loaded modules of these packages."""
    digest = hashlib.sha256()
    for name, module in sorted(sys.modules.items()):
        path = getattr(module, "__file__", None)
        if path is not None and any(name == each or name.startswith(f"{each}.") for each in packages):
            digest.update(f"{name} {ast.dump(ast.parse(Path(path).read_text()))}".encode())
    return digest.hexdigest()
