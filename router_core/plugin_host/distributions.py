"""Which distributions are installed and what they offer. The only file that reads distribution metadata.

One broken distribution never hides the others.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import importlib_metadata
from importlib_metadata import EntryPoint

from router_core.plugin_host.faults import describe

__all__ = ["DamagedDistribution", "Distribution", "EntryPoint", "dashed", "read_distributions"]


@dataclass(frozen=True, slots=True)
class DamagedDistribution:
    """A distribution whose metadata cannot be read, so nobody knows what it offers."""

    path: str
    problem: str


@dataclass(frozen=True, slots=True)
class Distribution:
    """What is needed of one distribution, read once.

    Attributes:
        name: As its metadata has it.
        version: `?` if it has none.
        summary: One line, may be empty.
        path: Where its metadata is.
        entry_points: All it offers, to anybody.
    """

    name: str
    version: str
    summary: str
    path: str
    entry_points: tuple[EntryPoint, ...]

    @property
    def key(self) -> str:
        """The name that all spellings of it share."""
        return dashed(self.name)


def read_distributions() -> tuple[list[Distribution], list[DamagedDistribution], dict[str, list[str]]]:
    """Read every distribution on `sys.path`; return the ones that count, the damaged ones, and notes by name.

    As with imports, the first folder on `sys.path` that holds a distribution shadows the later ones.
    """
    found: dict[str, list[Distribution]] = {}
    damaged: dict[str, DamagedDistribution] = {}
    for raw in importlib_metadata.distributions():
        path = str(getattr(raw, "_path", raw))
        try:
            distribution = _read(raw, path)
        except Exception as error:  # noqa: BLE001  # metadata is foreign input: whatever is wrong with it, show it
            damaged.setdefault(path, DamagedDistribution(path, f"{_reason(error)}; reinstall or delete it"))
            continue
        twins = found.setdefault(distribution.key, [])
        if all(twin.path != path for twin in twins):
            twins.append(distribution)
    chosen, notes = [], {}
    for key, twins in found.items():
        folder = Path(twins[0].path).parent
        here = sorted((twin for twin in twins if Path(twin.path).parent == folder), key=_version_key)
        chosen.append(here[-1])
        if len(here) > 1:
            versions = " and ".join(twin.version for twin in here)
            notes[key] = [f"{here[0].name} has leftover metadata of versions {versions} in {folder}; reinstall it"]
    return chosen, sorted(damaged.values(), key=lambda entry: entry.path), notes


def _read(raw: Any, path: str) -> Distribution:
    # `raw` is Any: how importlib_metadata calls the type of a distribution differs between its versions.
    if Path(path).name.startswith("~"):
        raise ValueError("left over from an interrupted pip run")
    # 1. METADATA: missing raises or is None, as the version of importlib_metadata likes.
    metadata = raw.metadata
    name = None if metadata is None else metadata.get("Name")
    if not name:
        missing = raw.read_text("METADATA") is None and raw.read_text("PKG-INFO") is None
        raise ValueError("METADATA is missing" if missing else "METADATA names no distribution")
    # 2. entry_points.txt
    try:
        entry_points = tuple(raw.entry_points)
    except Exception as error:
        raise ValueError(f"entry_points.txt is unreadable ({describe(error)})") from error
    version, summary = metadata.get("Version"), metadata.get("Summary")
    return Distribution(str(name), str(version or "?"), " ".join(str(summary or "").split()), path, entry_points)


def _reason(error: Exception) -> str:
    if type(error) is ValueError:
        return str(error)
    if type(error).__name__ == "MetadataNotFound":
        return "METADATA is missing"
    return f"METADATA is unreadable ({describe(error)})"


def _version_key(distribution: Distribution) -> tuple[tuple[int, ...], str]:
    return tuple(int(digits) for digits in re.findall(r"\d+", distribution.version)), distribution.version


def dashed(name: str) -> str:
    """Return a distribution's name as indexes write it: lower case, dashes (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()
