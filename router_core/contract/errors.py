"""The named errors. Few and flat; every message says thing, place and remedy in one sentence, values as `shown`.

An error with a constructor of its own hands what that takes to `Exception`, and makes its message in `__str__`: a copy,
and what comes out of another process, is made by calling the constructor again with `args`.
"""

from __future__ import annotations

from collections.abc import Iterable


class StartupError(Exception):
    """Something stands in the way of starting; nothing has been opened yet.

    Attributes:
        problems: One sentence each, in the order they were found.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        return "\n".join(self.problems)


class PolicyNotFoundError(StartupError):
    """No installed distribution offers the plugin that was named."""


class AmbiguousPolicyError(StartupError):
    """More than one installed distribution offers the plugin that was named."""


class PolicyLoadError(StartupError):
    """A plugin was found but its module or class could not be had."""


class PolicyContractError(StartupError):
    """A plugin breaks the hook contract in a way pluggy would let pass silently."""


class UndeclaredNeedError(Exception):
    """A policy read a costly fact that its `needs` does not declare."""

    def __init__(self, need: str) -> None:
        self.need = need
        super().__init__(need)

    def __str__(self) -> str:
        return f"request.{self.need} is not declared: add it to the policy class, needs = frozenset({{{self.need!r}}})"


def shown(value: object) -> str:
    """Return a value as it stands in a message: quoted if it is text, cut if it is long."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
