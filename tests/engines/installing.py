"""Engines too big for everybody's `.venv`: each in an environment of its own below `.cache/`, made once."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

INSTALL_TIMEOUT_S = 1800.0

_DONE = "installed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What to install.

    Attributes:
        name: Of its folder.
        packages: To install with what they depend on.
        alone: To install without what they depend on.
        left_out: What `packages` depend on and nobody here needs.
    """

    name: str
    packages: tuple[str, ...]
    alone: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


class InstallError(Exception):
    """An engine could not be installed; says what the installer said."""


def is_installed(recipe: Recipe, cache: Path) -> bool:
    """Return whether the recipe has been followed to its end."""
    return (_folder(recipe, cache) / _DONE).exists()


def installed(recipe: Recipe, cache: Path) -> Path:
    """Return the Python of the recipe's environment, making it unless this very recipe has been followed before.

    PyTorch's wheels for the CPU come from its own index, unless `UV_FIND_LINKS` or `UV_TORCH_BACKEND` say otherwise.

    Args:
        cache: A folder that survives the test session; made if it is missing.

    Raises:
        InstallError: If that fails.
    """
    folder = _folder(recipe, cache)
    python = folder / "bin" / "python"
    if is_installed(recipe, cache):
        return python
    shutil.rmtree(folder, ignore_errors=True)  # what an interrupted installation left
    cache.mkdir(parents=True, exist_ok=True)
    _uv("venv", "--quiet", "--python", sys.executable, str(folder))
    left_out = folder / "left-out.txt"
    left_out.write_text("\n".join(recipe.left_out))
    install = ("pip", "install", "--quiet", "--python", str(python))
    if recipe.alone:
        _uv(*install, "--no-deps", *recipe.alone)
    _uv(*install, "--excludes", str(left_out), *recipe.packages)
    (folder / _DONE).touch()
    return python


def _folder(recipe: Recipe, cache: Path) -> Path:
    return cache / f"{recipe.name}-{hashlib.sha256(repr(recipe).encode()).hexdigest()[:16]}"


def _uv(*arguments: str) -> None:
    environment = dict(os.environ)
    if "UV_FIND_LINKS" not in environment:
        environment.setdefault("UV_TORCH_BACKEND", "cpu")
    try:
        subprocess.run(
            [sys.executable, "-m", "uv", *arguments],
            check=True,
            capture_output=True,
            text=True,
            env=environment,
            timeout=INSTALL_TIMEOUT_S,
        )
    except subprocess.CalledProcessError as error:
        raise InstallError(error.stderr.strip()) from error
    except subprocess.TimeoutExpired as error:
        raise InstallError(f"not within {INSTALL_TIMEOUT_S:g} s") from error
