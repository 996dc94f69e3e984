"""What a request is kept together by: the first key it has, of those the options name in order."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, NamedTuple

from pydantic import AfterValidator, BeforeValidator
from xxhash import xxh3_64_intdigest

from router_core.api import Leg, RoutingRequest


class Key(NamedTuple):
    """A request's key.

    Attributes:
        source: Where it was found, as the options name it.
        digest: 64 bits that stand for it, so that what clients call themselves is neither kept nor logged.
    """

    source: str
    digest: int


class KeyReader:
    """Finds a request's key.

    Attributes:
        needs: What must be declared for it.
    """

    def __init__(self, sources: tuple[str, ...], prefix_tokens: int) -> None:
        """Make a reader.

        Args:
            sources: `session`, `user`, `prefix` or `header:<lower-case name>`, the first that a request has counts.
            prefix_tokens: How much of a prompt is its prefix; four characters are taken for a token.
        """
        self._readers = [(source, _reader(source, 4 * prefix_tokens)) for source in sources]
        headers = {source for source in sources if source.startswith(_HEADER)}
        self.needs = frozenset(headers | ({"text"} if "prefix" in sources else set()))

    def read(self, request: RoutingRequest) -> Key | None:
        """Return the key of a request, None if it has none."""
        for source, reader in self._readers:
            digest = reader(request)
            if digest is not None:
                return Key(source, digest)
        return None


def _reader(source: str, prefix_characters: int) -> Callable[[RoutingRequest], int | None]:
    match source:
        case "session":
            return lambda request: _digest(request.session)
        case "user":
            return lambda request: _digest(request.user)
        case "prefix":
            return lambda request: _prefix_digest(request, prefix_characters)
    header = source.removeprefix(_HEADER)
    return lambda request: _digest(request.headers.get(header))


def _digest(value: str | None) -> int | None:
    return xxh3_64_intdigest(value.encode("utf-8", "surrogatepass")) if value else None


def _prefix_digest(request: RoutingRequest, characters: int) -> int | None:
    if request.leg is Leg.DECODE:  # who computed a prompt does not matter to who decodes it
        return None
    beginning = request.text[:characters].encode("utf-8", "surrogatepass")
    if not beginning:
        return None
    return xxh3_64_intdigest(beginning, xxh3_64_intdigest(repr(request.namespace).encode()))


# --- as options ---


def _split(value: object) -> object:
    return re.findall(r"[^\s,]+", value) if isinstance(value, str) else value


def _checked(sources: tuple[str, ...]) -> tuple[str, ...]:
    checked = tuple(source.lower() if source.lower().startswith(_HEADER) else source for source in sources)
    for source in checked:
        if source not in _PLAIN and not _HEADER_SOURCE.fullmatch(source):
            raise ValueError(f"{source!r} is no key; write session, user, prefix or header:NAME")
        if checked.count(source) > 1:
            raise ValueError(f"{source!r} stands there more than once; name each key once")
    if not checked:
        raise ValueError("no key is named; write session, user, prefix or header:NAME")
    return checked


_HEADER = "header:"
_HEADER_SOURCE = re.compile(r"header:[a-z0-9!#$%&'*+.^_`|~-]+")
_PLAIN = frozenset({"session", "user", "prefix"})

KeySources = Annotated[tuple[str, ...], BeforeValidator(_split), AfterValidator(_checked)]
"""An option's type: key sources in order, as a list or as text with commas between them."""
