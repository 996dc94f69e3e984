"""What single values must look like: the checks behind the schema's types, each a function of one value."""

from __future__ import annotations

import re

from pydantic_core import PydanticCustomError

from router_core.contract.errors import shown


class ContradictionError(ValueError):
    """Settings that do not go together.

    Attributes:
        others: The settings beside the one that is blamed, by their paths from the section it stands in.
    """

    def __init__(self, sentence: str, *others: str) -> None:
        self.others = others
        super().__init__(sentence)


def model_name(value: str) -> str:
    """Return a model's name if it can be one: not empty, no control characters, no white space at its ends."""
    if not value or value != value.strip() or not value.isprintable():
        raise ValueError(f"{shown(value)} is no model's name; write it as the engine's /v1/models has it")
    return value


def split_words(value: object) -> object:
    """Return text as its words, parted by white space or commas; anything else as it is."""
    return tuple(re.findall(r"[^\s,]+", value)) if isinstance(value, str) else value


def prefill_workers(value: object) -> object:
    """Return text of URLs, each with its bootstrap port after it if it has one, as pairs; anything else as it is."""
    if not isinstance(value, str):
        return value
    found: list[list[str]] = []
    for word in re.findall(r"[^\s,]+", value):
        if found and len(found[-1]) == 1 and (word.isdigit() or word == "none"):
            found[-1].append(word)
        else:
            found.append([word])
    return found


def prefill_worker(value: object) -> object:
    """Return `URL`, `[URL]` or `[URL, PORT]` as a mapping; anything else as it is.

    Raises:
        ValueError: If a list has more than two items, or another URL for a port.
    """
    if isinstance(value, str):
        return {"url": value}
    if not isinstance(value, list | tuple):
        return value
    if not 1 <= len(value) <= 2:
        raise ValueError(f"{shown(' '.join(map(str, value)))} is not URL [PORT]; give each prefill worker by itself")
    port = value[1] if len(value) == 2 else None
    if isinstance(port, str) and "://" in port:
        raise ValueError(
            f"{shown(port)} is no bootstrap port; give each prefill worker by itself, --prefill URL [PORT]"
        )
    return {"url": value[0], "bootstrap_port": None if port == "none" else port}


def not_bool(value: object) -> object:
    """Return a value if it is not a truth value, which pydantic would read as 0 or 1."""
    if isinstance(value, bool):
        raise PydanticCustomError("not_a_number", "a truth value is not a number")
    return value


def log_level(value: object) -> object:
    """Return a log level in lower case, `warn` as `warning`."""
    if not isinstance(value, str):
        return value
    return "warning" if value.lower() == "warn" else value.lower()


def single_word(value: str) -> str:
    """Return `value` if it is not empty and holds no white space."""
    if not value or re.search(r"\s", value):
        raise ValueError(f"{shown(value)} is empty or holds white space; give one word")
    return value


def header_name(value: str) -> str:
    """Return `value` in lower case if it can name a header."""
    if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", value):
        raise ValueError(f"{shown(value)} is not the name of a header; letters, digits and '-' can be in it")
    return value.lower()


def request_path(value: str) -> str:
    """Return `value` if it can stand in a request line as a path, with a query at most."""
    if not re.fullmatch(r"/[!-\"$-~]*", value):
        raise ValueError(f"{shown(value)} is not a path; begin it with '/', without spaces or '#'")
    return value
