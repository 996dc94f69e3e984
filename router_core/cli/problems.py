"""What stands in the way of starting, gathered from parts that do not need each other, to be told at once."""

from __future__ import annotations

from types import TracebackType

from router_core.contract.errors import StartupError


class Problems:
    """Keeps the problems of each `with` block, which ends there; whoever opened it goes on to the next."""

    def __init__(self) -> None:
        self._found: list[str] = []

    def __enter__(self) -> None:
        """Begin a part."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if not isinstance(error, StartupError):
            return False
        self._found += error.problems
        return True

    def raise_any(self) -> None:
        """Go no further if there is any.

        Raises:
            StartupError: With each of them once.
        """
        if self._found:
            raise StartupError(dict.fromkeys(self._found))
