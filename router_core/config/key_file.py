"""All API keys there are: those of the settings and those of the file that the settings name."""

from __future__ import annotations

import logging
import stat
from pathlib import Path

from pydantic import ValidationError

from router_core.config.auth import DEFAULT_KEY, ApiKey, AuthConfig, KeyFile
from router_core.config.sources import read_mapping
from router_core.config.wording import dotted, what_is_wrong
from router_core.contract.errors import StartupError

_log = logging.getLogger(__name__)


def all_keys(auth: AuthConfig) -> tuple[ApiKey, ...]:
    """Return every key, those of the file read anew.

    Raises:
        StartupError: If the file cannot be used, or a name or key stands there twice. No sentence shows a key.
    """
    keys = list(auth.keys)
    if auth.api_key is not None:
        keys.append(ApiKey(name=DEFAULT_KEY, key=auth.api_key, scopes=("inference", "admin"), max_priority="high"))
    if auth.keys_file is not None:
        keys += _keys_of(auth.keys_file)
    problems = []
    names: set[str] = set()
    owners: dict[bytes, str] = {}
    for key in keys:
        if key.name in names:
            problems.append(f"auth: two keys are called {key.name!r}; rename one of them")
        elif owners.setdefault(key.digest, key.name) != key.name:
            problems.append(f"auth: {owners[key.digest]!r} and {key.name!r} have the same key; give each its own")
        names.add(key.name)
    if problems:
        raise StartupError(problems)
    return tuple(keys)


def _keys_of(file: Path) -> tuple[ApiKey, ...]:
    try:
        keys = KeyFile.model_validate(read_mapping(file)).keys
    except ValidationError as error:
        raise StartupError(
            f"{file}: {dotted(details['loc'])}: {what_is_wrong(details, ('auth', *details['loc']))}"
            for details in error.errors(include_url=False)
        ) from None  # pydantic's own words show what was given
    if file.stat().st_mode & stat.S_IROTH and any(key.key is not None for key in keys):
        _log.warning("%s: anybody on this machine may read these API keys: chmod o-r, or give sha256 for key", file)
    return keys
