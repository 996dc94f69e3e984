"""Describes one policy from its code, in a process of its own; both ends of that conversation.

Importing a stranger's module may print, hang, crash or end the process. The child sends one JSON object and ends
without asking threads or exit handlers; whatever else it does, the parent has a sentence.
"""

from __future__ import annotations

import inspect
import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from router_core.contract.errors import PolicyNotFoundError, StartupError
from router_core.contract.hookspecs import PROJECT_NAME

Description = dict[str, Any]  # Any: it comes as JSON
"""What is known of a policy: `name`, `distribution`, `version`, `target`, `summary`, `hooks`, `needs`, `options` and
`problems`. With problems, the rest may be missing; `is_unknown` says that nobody offers the name."""


def describe_in_child(name: str, *, app_dir: Path | None, timeout_s: float) -> Description:
    """Import a policy in a child process and return what it says of itself. Never raises because of the policy.

    Args:
        name: An installed policy, or `module:Class`.
        app_dir: Where `module:Class` is looked up.
        timeout_s: How long the import may take.
    """
    # -P: the working directory is no place to import installed policies from. Files instead of pipes: a grandchild
    # that keeps one open cannot keep us waiting.
    command = [sys.executable, "-P", "-m", __name__, name, *([str(app_dir)] if app_dir else [])]
    with tempfile.TemporaryFile() as answer, tempfile.TemporaryFile() as noise:
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            command, stdin=subprocess.DEVNULL, stdout=answer, stderr=noise, start_new_session=True
        )
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return _failed(name, f"its import has not ended within {timeout_s:g} s; look for work at module level")
        finally:
            if process.returncode is None:  # not reaped, so the group is still ours: end the child and all it started
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        answer.seek(0)
        try:
            description: Description = json.load(answer)
        except ValueError:
            return _failed(name, f"its import {_death(process.returncode)}{_last_line(noise)}")
        return description


def _failed(name: str, sentence: str) -> Description:
    return {"name": name, "problems": [f"policy {name!r}: {sentence}"]}


def _death(code: int) -> str:
    if code >= 0:
        return f"ended the process with exit code {code}; a module must not do that"
    return f"crashed the process with {signal.Signals(-code).name}"


def _last_line(noise: IO[bytes]) -> str:
    size = noise.seek(0, os.SEEK_END)
    noise.seek(max(0, size - 2000))
    lines = noise.read().decode(errors="replace").strip().splitlines()
    return f" (its last words: {lines[-1].strip()[:200]})" if lines else ""


# --- the child ---


def describe(name: str, app_dir: Path | None) -> Description:
    """Import a policy and return what it says of itself."""
    from router_core.plugin_host.discovery import load_policy

    try:
        loaded = load_policy(name, app_dir=app_dir)
        about: Description = {
            "name": name,
            "distribution": loaded.distribution,
            "version": loaded.version,
            "target": loaded.target,
            "problems": [],
        }
        return {**about, **_describe_class(loaded.cls, f"policy {name!r} of {loaded.source}")}
    except PolicyNotFoundError as error:
        return {"name": name, "problems": list(error.problems), "is_unknown": True}
    except StartupError as error:
        return {"name": name, "problems": list(error.problems)}


def _describe_class(cls: type, plugin: str) -> Description:
    from router_core.plugin_host.faults import describe as describe_error
    from router_core.plugin_host.options import describe_options
    from router_core.plugin_host.slips import find_slips

    try:
        needs: object = getattr(cls, "needs", frozenset())
        return {
            "summary": (inspect.getdoc(cls) or "").partition("\n\n")[0],
            "hooks": _hooks(cls),
            "needs": sorted(str(need) for need in needs) if isinstance(needs, frozenset) else [],
            "options": [asdict(option) for option in describe_options(cls)],
            # A pair suffices: which pool it is for, nobody has said yet.
            "problems": [f"{plugin}: {slip}" for slip in find_slips(cls, kind="policy", needs_pair=True)],
        }
    except Exception as error:  # noqa: BLE001 - the class is a stranger's; so are its descriptors and metaclass
        return {"problems": [f"{plugin}: cannot be looked at: it raised {describe_error(error)}"]}


def _hooks(cls: type) -> list[str]:
    marks = ((name, getattr(inspect.getattr_static(cls, name), f"{PROJECT_NAME}_impl", None)) for name in dir(cls))
    return [mark.get("specname") or name for name, mark in marks if isinstance(mark, dict)]


def _main() -> None:
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what the module prints is not the answer
    name, *app_dir = sys.argv[1:]
    json.dump(describe(name, Path(app_dir[0]) if app_dir else None), channel)
    channel.flush()
    os._exit(0)  # its threads and exit handlers are not waited for


if __name__ == "__main__":
    _main()
