"""Which of a client's headers go to workers. Asked when a head is parsed, never for one that comes again."""

from __future__ import annotations

from collections.abc import Callable, Iterable

ALL = "all"
COOKIE = b"cookie"
PRESETS = {
    "sglang": (
        "authorization",
        "traceparent",
        "tracestate",
        "x-correlation-id",
        "x-request-id",
        "x-request-id-*",
        "x-smg-routing-key",
    )
}
"""Names that stand for several: what other gateways forward."""

_OF_THE_BODY = ("content-encoding", "content-type")  # without them a worker could not read it


def header_choice(names: Iterable[str]) -> Callable[[bytes], bool] | None:
    """Return whether a header, by its lower-case name, goes to workers; None for all but cookies, the usual case.

    Args:
        names: Lower-case names; `name-*` takes all that begin so, `all` every one but cookies, and a preset its own.
    """
    wanted = {name for given in names for name in PRESETS.get(given, (given,))}
    if wanted == {ALL}:
        return None
    exact = frozenset(name.encode() for name in (*wanted, *_OF_THE_BODY) if not name.endswith("*"))
    prefixes = tuple(name[:-1].encode() for name in wanted if name.endswith("*"))
    if ALL in wanted:
        return lambda name: name != COOKIE or name in exact
    return lambda name: name in exact or name.startswith(prefixes)
