"""`router-core policies`: what is installed, from metadata alone; with a name or `--load`, what the code says too."""

from __future__ import annotations

import argparse
import json
import shutil
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path

from router_core.cli.describe_policy import Description, describe_in_child
from router_core.contract.errors import StartupError
from router_core.plugin_host.discovery import Inventory, installed_policies
from router_core.plugin_host.distributions import DamagedDistribution

FAILED = 1
UNKNOWN_NAME = 2

_NONE_INSTALLED = "No policy is installed; pip install 'router-core[policies]' brings the built-in ones."
_NARROWEST = 24
_ROOMY = 50


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="show this policy in detail; `module:Class` works too")
    parser.add_argument("--load", action="store_true", help="import and check every policy, each in its own process")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--app-dir", type=Path, default=Path(), metavar="FOLDER", help="where `module:Class` is looked up (default: .)"
    )
    parser.add_argument(
        "--timeout-s", type=float, default=20.0, metavar="SECONDS", help="how long an import may take (default: 20)"
    )


def run(parsed: argparse.Namespace) -> int:
    """Print what was asked for.

    Returns:
        0 for a mere listing, whatever it holds; with `--load` or a name, 1 if a policy cannot be used; with `--json`,
        2 if nobody offers the name.

    Raises:
        StartupError: Nobody offers the name, and not JSON was asked for.
    """
    describe = partial(describe_in_child, app_dir=parsed.app_dir, timeout_s=parsed.timeout_s)
    if parsed.name is not None:
        description = describe(parsed.name)
        if description.get("is_unknown") and not parsed.json:
            raise StartupError(description["problems"])
        _print(description if parsed.json else "\n".join(_in_detail(description)))
        if description.get("is_unknown"):
            return UNKNOWN_NAME
        return FAILED if description["problems"] else 0
    inventory = installed_policies()
    if not parsed.load:
        _print(_as_json(inventory) if parsed.json else "\n".join(_listing(inventory)))
        return 0
    names = sorted({plugin.name for plugin in inventory.plugins})
    with ThreadPoolExecutor(max_workers=4) as pool:
        descriptions = list(pool.map(describe, names))
    if parsed.json:
        _print({**_as_json(inventory), "policies": descriptions})
    else:
        blocks = ["\n".join(_in_detail(description)) for description in descriptions] or [_NONE_INSTALLED]
        _print("\n\n".join([*blocks, *_damage(inventory.damaged)]))
    return FAILED if any(description["problems"] for description in descriptions) else 0


def _print(answer: object) -> None:
    print(answer if isinstance(answer, str) else json.dumps(answer, indent=2))


def _as_json(inventory: Inventory) -> dict[str, object]:
    return {
        "policies": [asdict(plugin) for plugin in inventory.plugins],
        "damaged": [asdict(distribution) for distribution in inventory.damaged],
    }


# --- for people ---


def _listing(inventory: Inventory) -> Iterator[str]:
    rows = [
        (
            (plugin.name, plugin.distribution, plugin.version),
            (plugin.summary, plugin.target, *(f"! {problem}" for problem in plugin.problems)),
        )
        for plugin in inventory.plugins
    ]
    if rows:
        yield from _table(("NAME", "DISTRIBUTION", "VERSION", "WHAT IT DOES, WHERE IT IS"), rows)
    else:
        yield _NONE_INSTALLED
    yield from _damage(inventory.damaged)


def _damage(damaged: Iterable[DamagedDistribution]) -> Iterator[str]:
    for distribution in damaged:
        yield _printable(f"! damaged distribution {distribution.path}: {distribution.problem}")


def _in_detail(description: Description) -> Iterator[str]:
    if "target" in description:
        distribution, version = description["distribution"], description["version"]
        source = f"{distribution} {version}" if distribution else "in-house"
        yield _printable(f"{description['name']}  ({source}, {description['target']})")
    else:
        yield _printable(description["name"])
    if summary := description.get("summary"):
        yield from _wrapped(summary, indent="  ")
    for problem in description["problems"]:
        yield from _wrapped(f"! {problem}", indent="  ")
    if "hooks" in description:
        yield from _wrapped(f"hooks: {', '.join(description['hooks']) or 'none'}", indent="  ")
        yield from _wrapped(f"needs: {', '.join(description['needs']) or 'nothing'}", indent="  ")
        yield from _options(description["options"])


def _options(options: Sequence[Description]) -> Iterator[str]:
    if not options:
        yield "  options: none"
        return
    rows = []
    for option in options:
        is_required = option["default"] == "required"
        takes = (option["type"], *option["constraints"], "required" if is_required else f"default {option['default']}")
        rows.append(((option["name"],), (option["description"], ", ".join(takes))))
    yield from (f"  {line}" for line in _table(("OPTION", "WHAT IT DOES, WHAT IT TAKES"), rows))


def _table(heads: Sequence[str], rows: Sequence[tuple[Sequence[str], Sequence[str]]]) -> Iterator[str]:
    """Lay out rows of short cells and one last cell of several texts, which takes the width that is left."""
    short = [[_printable(cell) for cell in cells] for cells, _ in rows]
    widths = [max(len(cell) for cell in column) for column in zip(heads[:-1], *short, strict=True)]
    left = "  ".join("{:<%d}" % width for width in widths) + "  "  # noqa: UP031 - braces are the template's
    room = max(_NARROWEST, _width() - 2 - len(left.format(*heads)))
    if room < _ROOMY and len(heads) > 2:  # a narrow terminal: all but the first column go into the last
        folded = [((cells[0],), ("  ".join(cells[1:]), *texts)) for cells, (_, texts) in zip(short, rows, strict=True)]
        yield from _table((heads[0], heads[-1]), folded)
        return
    yield left.format(*heads[:-1]) + heads[-1]
    for cells, (_, texts) in zip(short, rows, strict=True):
        lines = [
            line for text in texts if text for line in textwrap.wrap(_printable(text), room, break_on_hyphens=False)
        ] or [""]
        yield (left.format(*cells) + lines[0]).rstrip()
        for line in lines[1:]:
            yield left.format(*("" for _ in cells)) + line


def _wrapped(text: str, *, indent: str) -> list[str]:
    room = max(_NARROWEST, _width())
    return textwrap.wrap(_printable(text), room, initial_indent=indent, subsequent_indent=indent + "  ")


def _width() -> int:
    return shutil.get_terminal_size((120, 24)).columns


def _printable(text: str) -> str:
    """Return text on one line, without characters that could steer a terminal: it is a stranger's."""
    return "".join(character if character.isprintable() else " " for character in text)
