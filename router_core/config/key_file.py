"""All API keys there are: those of the settings and those of the file that the settings name."""

from __future__ import annotations

import logging
import stat
from pathlib import Path

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from router_core.config.auth import DEFAULT_KEY, ApiKey, AuthConfig, KeyFile
from router_core.config.sources import read_mapping
from router_core.config.wording import place_of, what_is_wrong
from router_core.contract.errors import StartupError

_log = logging.getLogger(__name__)


def all_keys(auth: AuthConfig) -> tuple[ApiKey, ...]:
    """Return every key, those of the file read anew.

    Raises:
        StartupError: If the file cannot be used, or a name or key stands there twice. No sentence shows a key.
    """
    keys = [(f"auth.keys[{index}]", key) for index, key in enumerate(auth.keys)]
    if auth.api_key is not None:
        only = ApiKey(name=DEFAULT_KEY, key=auth.api_key, scopes=("inference", "admin"), max_priority="high")
        keys.append(("auth.api_key", only))
    if auth.keys_file is not None:
        keys += [(f"{auth.keys_file}, keys[{index}]", key) for index, key in enumerate(_keys_of(auth.keys_file))]
    problems = []
    names: dict[str, str] = {}
    owners: dict[bytes, str] = {}
    for place, key in keys:
        if names.setdefault(key.name, place) != place:
            problems.append(f"{place}: is called {key.name!r}, as {names[key.name]} is; rename one of them")
        elif owners.setdefault(key.digest, place) != place:
            problems.append(f"{place}: {key.name!r} has the same key as {owners[key.digest]}; give each its own")
    if problems:
        raise StartupError(problems)
    return tuple(key for _, key in keys)


def _keys_of(file: Path) -> tuple[ApiKey, ...]:
    try:
        keys = KeyFile.model_validate(read_mapping(file, quotes=False)).keys
    except ValidationError as error:
        problems = (f"{file}: {_sentence(details)}" for details in error.errors(include_url=False))
        raise StartupError(dict.fromkeys(problems)) from None  # pydantic's own words show what was given
    if file.stat().st_mode & stat.S_IROTH and any(key.key is not None for key in keys):
        _log.warning("%s: anybody on this machine may read these API keys: chmod o-r, or give sha256 for key", file)
    return keys


def _sentence(details: ErrorDetails) -> str:
    location = tuple(part for part in details["loc"] if part != "[key]")
    if location[:1] != ("keys",):
        return "has a name beside `keys`, the only one known there; write each key as an entry under `keys`"
    location = ("auth", *location)
    return f"{place_of(details, location).removeprefix('auth.')}: {what_is_wrong(details, location)}"
