"""What is wrong with a setting, in a sentence with a remedy. A value that may be a secret is never shown."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping

from pydantic_core import ErrorDetails

from router_core.config.auth import ApiKey
from router_core.config.fields import iter_fields
from router_core.config.models import ModelConfig
from router_core.config.pd import PrefillWorker
from router_core.config.selection import PluginSelection, PolicySelection
from router_core.contract.errors import shown

Location = tuple[int | str, ...]


def what_is_wrong(details: ErrorDetails, location: Location) -> str:
    """Say what is wrong and what to do.

    1. A key nobody knows.  2. A sentence of a validator of ours.  3. Nothing at all.  4. A file that is not there.
    5. A value of the wrong kind or out of range.
    """
    if details["type"] in ("extra_forbidden", "invalid_key"):
        return f"{'unknown name' if _is_of_a_key(location) else 'unknown setting'}; {_remedy_for_unknown(location)}"
    if details["type"] == "value_error":
        return str(details["ctx"]["error"])
    if details["type"] == "missing":
        return "is missing; add it"
    if details["type"] == "path_not_file":
        given = str(details["input"])
        may_be_key = location == ("auth", "keys_file") and not re.search(r"/|\.(ya?ml|toml)$", given)
        return f"{'the value' if may_be_key else shown(given)} is no file; give one that exists"
    given = "the value" if _is_secret(location) else shown(details["input"])
    return f"{given} does not fit; give {_expected_at(location)}"


def _is_secret(location: Location) -> bool:
    """Return whether what stands there may be a key: it must not get into a message."""
    names = [part for part in location if isinstance(part, str)]
    return _is_of_a_key(location) or (bool(names) and names[-1] in _SECRET)


def _is_of_a_key(location: Location) -> bool:
    """Return whether a place is inside an API key's entry, where anything may be the key, put into the wrong place."""
    return location[:2] == ("auth", "keys") and len(location) > 3


def place_of(details: ErrorDetails, location: Location) -> str:
    """Return the place to name in the sentence; of a name nobody knows in a key's entry, the entry."""
    is_unknown = details["type"] in ("extra_forbidden", "invalid_key")
    return dotted(location[:-1] if is_unknown and _is_of_a_key(location) else location)


_SECRET = frozenset({"api_key", "key", "keys", "sha256"})


_LIST = "a list of "
_ITEM_OF: Mapping[str, str] = {
    "URLs": "a URL, http://HOST:PORT",
    "files": "a file",
    "header names": "the name of a header",
    "origins": "an origin, https://HOST[:PORT]",
    "plugins": "a name or a mapping with name",
    "prefill workers": "a URL, or a mapping with url and bootstrap_port",
    "models": "a name, or a mapping with name and what is the model's own",
    "API keys": "a mapping with name and key",
}
"""What each item of a list is, by what the setting takes."""


def _expected_at(location: Location) -> str:
    path = dotted(location)
    for field in iter_fields():
        if field.path == path:
            return field.expects
    for field in iter_fields():
        if field.path == dotted(location[:-1]) and field.expects.startswith(_LIST):
            items = field.expects.removeprefix(_LIST)
            return _ITEM_OF.get(items, items if items.startswith("whole numbers") else f"one of {items}")
    if location[-1:] == ("options",):
        return "a mapping, `{option: value}`"
    if any(field.path.startswith(f"{path}.") for field in iter_fields()):
        return f"a mapping with, for example, {path}.{_children(location)[0]}"
    if location[-1:] == ("bootstrap_port",):
        return "a whole number from 1 to 65535, or nothing"
    if location[:1] == ("models",):
        return "text" if location[-1:] == ("name",) else "a mapping with name, and what is the model's own"
    if location[:2] == ("pd", "prefill"):
        return "a URL, or a mapping with url and bootstrap_port"
    if location[:2] == ("auth", "keys"):
        return _EXPECTED_OF_KEY.get(str(location[3]), "text") if len(location) > 3 else "a mapping with name and key"
    return "text" if location[:1] == ("worker_urls",) or location[-1:] == ("name",) else "a name or a mapping with name"


_EXPECTED_OF_KEY: Mapping[str, str] = {
    "scopes": "one or more of inference, admin, metrics",
    "max_priority": "one of low, normal, high",
    "max_concurrent_requests": "a whole number, 1 or more",
    "requests_per_s": "a number above 0",
    "tokens_per_s": "a number above 0",
    "weight": "a number above 0",
}


def _remedy_for_unknown(location: Location) -> str:
    name = str(location[-1])
    siblings = _children(location[:-1])
    near = difflib.get_close_matches(name, siblings, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    elsewhere = [field.path for field in iter_fields() if field.path.rpartition(".")[2] == name]
    if elsewhere:
        return f"did you mean {elsewhere[0]!r}?"
    return f"known here: {', '.join(siblings)}"


def _children(section: Location) -> list[str]:
    """Return the names a section may hold, in order."""
    if section[:1] in (("membership",), ("wrappers",), ("observers",), ("prefill_policy",), ("decode_policy",)):
        return list(PluginSelection.model_fields)
    if section[:2] == ("pd", "prefill"):
        return list(PrefillWorker.model_fields)
    if section[:1] == ("models",):
        return _children_of_model(section[2:])
    if section[:2] == ("auth", "keys"):
        return list(ApiKey.model_fields)
    prefix = "".join(f"{part}." for part in section)
    inside = (field.path.removeprefix(prefix) for field in iter_fields() if field.path.startswith(prefix))
    return list(dict.fromkeys(path.partition(".")[0] for path in inside))


def _children_of_model(section: Location) -> list[str]:
    if not section:
        return list(ModelConfig.model_fields)
    if section[0] == "pd":
        return _children(section)
    return list((PolicySelection if section[0] == "policy" else PluginSelection).model_fields)


def dotted(location: Location) -> str:
    """Return a place in the settings as people write it: `worker_urls[0]`."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return "".join(parts).removeprefix(".")
