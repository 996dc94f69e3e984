"""The flags whose text is more than one value: workers with ports, labels, keys with roles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from router_core.config.sources import parse_scalar

_ROLES = ("admin", "user")


def prefill_urls(given: Sequence[Sequence[str]] | None) -> list[tuple[str, int | None]]:
    """Return the prefill workers of `--prefill URL [PORT|none]`.

    Raises:
        ValueError: If a port is none.
    """
    return [(words[0], _port(words)) for words in given or ()]


def decode_urls(given: Sequence[Sequence[str]] | None) -> list[str]:
    """Return the decode workers of `--decode URL`."""
    return [words[0] for words in given or ()]


def key_value_pairs(option: str, given: Sequence[str] | Mapping[str, str] | None) -> dict[str, str]:
    """Return what `KEY=VALUE ...` says, the pairs in one word or several.

    Args:
        option: The flag, for messages.
        given: What it was given.

    Raises:
        ValueError: If something is no pair.
    """
    if isinstance(given, Mapping):
        return dict(given)
    pairs = {}
    for item in (word for text in given or () for word in text.split()):
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise ValueError(f"{option} {item}: is not KEY=VALUE; write {option} {key or 'KEY'}=VALUE")
        pairs[key] = value
    return pairs


def policy_options(given: Sequence[str] | Mapping[str, object] | None) -> dict[str, object]:
    """Return the options of `--policy-option KEY=VALUE`, each value read as YAML reads a plain word.

    Raises:
        ValueError: If something is no pair.
    """
    if isinstance(given, Mapping):
        return dict(given)
    options: dict[str, object] = {}
    for text in given or ():
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ValueError(f"--policy-option {text}: is not KEY=VALUE; write --policy-option {key or 'KEY'}=VALUE")
        options[key] = parse_scalar(value)
    return options


def control_plane_keys(given: Sequence[str] | None) -> list[tuple[str, str, str, str]]:
    """Return id, name, key and role of each `ID:NAME:ROLE:KEY`.

    Raises:
        ValueError: If a part is missing or the role is neither admin nor user; the text, a secret, is not shown.
    """
    keys = []
    for number, text in enumerate(given or (), 1):
        parts = text.split(":", 3)
        if len(parts) != 4 or not parts[3]:
            raise ValueError(f"--control-plane-api-keys: no. {number} is not ID:NAME:ROLE:KEY; give all four parts")
        identity, name, role, key = parts
        if role.lower() not in _ROLES:
            raise ValueError(
                f"--control-plane-api-keys: {identity!r} has the role {role!r}; give one of {', '.join(_ROLES)}"
            )
        keys.append((identity, name, key, role.lower()))
    return keys


def _port(words: Sequence[str]) -> int | None:
    if len(words) > 2:
        raise ValueError(f"--prefill {' '.join(words)}: takes a URL and a port; repeat --prefill for the next worker")
    if len(words) == 1 or words[1].lower() == "none":
        return None
    if not words[1].isdecimal():
        raise ValueError(f"--prefill {words[0]} {words[1]}: {words[1]!r} is no port; give a number, or none")
    return int(words[1])
