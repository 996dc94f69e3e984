"""Compares all policies on a fixed matrix of traces and fleets, and writes docs/explanation/routing-quality.md.

    make quality                                            # with the synthetic workloads only
    LLM_TRACES=~/traces make quality                # with the public traces too
    .venv/bin/python tests/quality/run.py --again short-4-95

A result is kept in .quality/ until the code that made it changes, so a second run is quick.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

from cells import ALL_TIERS, ENTRANTS, PUBLIC_CELLS, TRACES_VARIABLE
from page import write_public, write_synthetic
from results import results
from synthetic_cells import SYNTHETIC_CELLS


def main() -> int:
    """Run what is missing and write the page."""
    names = [cell.name for cell in (*PUBLIC_CELLS, *SYNTHETIC_CELLS)]
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs at a time; all cores by default")
    parser.add_argument("--again", nargs="+", default=[], choices=names, metavar="CELL", help="; ".join(names))
    parser.add_argument("--full", action="store_true", help="let everybody take part in every cell")
    arguments = parser.parse_args()
    began = time.monotonic()

    def told(what: str) -> None:
        print(f"{time.monotonic() - began:6.0f} s  {what}", flush=True)

    again = set(arguments.again)
    public = tuple(replace(cell, tiers=ALL_TIERS) for cell in PUBLIC_CELLS) if arguments.full else PUBLIC_CELLS
    made = results(SYNTHETIC_CELLS, ENTRANTS, jobs=arguments.jobs, again=again, told=told)
    write_synthetic(SYNTHETIC_CELLS, made)
    if not (folder := os.environ.get(TRACES_VARIABLE)):
        print(f"{TRACES_VARIABLE} names no folder with traces: only the synthetic workloads were run and written.")
        print("docs/howto/traces.md says where the traces come from.")
        return 0
    if missing := [cell.trace for cell in PUBLIC_CELLS if not (Path(folder) / f"{cell.trace}.jsonl.gz").is_file()]:
        print(f"{TRACES_VARIABLE}={folder}: has no {missing[0]}.jsonl.gz; see docs/howto/traces.md", file=sys.stderr)
        return 2
    made = results(public, ENTRANTS, jobs=arguments.jobs, again=again, told=told)
    write_public(public, made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
