"""The API keys that workers want, by their address. They are told to nobody else: no policy, no answer, no log."""

from __future__ import annotations

from collections.abc import Callable

OnChange = Callable[[str], None]


class WorkerKeys:
    """Which key goes to which worker.

    Args:
        default: For workers that have none of their own; None sends them what the client sent.
    """

    def __init__(self, default: str | None = None) -> None:
        self._default = default
        self._own: dict[str, str] = {}
        self._on_change: list[OnChange] = []

    def of(self, base_url: str) -> str | None:
        """Return the key of the worker at an address, None if it has none."""
        return self._own.get(base_url, self._default)

    def give(self, base_url: str, key: str | None) -> None:
        """Set a worker's own key; None takes it back."""
        if self._own.get(base_url) == key:
            return
        if key is None:
            del self._own[base_url]
        else:
            self._own[base_url] = key
        for tell in self._on_change:
            tell(base_url)

    def subscribe(self, on_change: OnChange) -> None:
        """Have changes reported, by address."""
        self._on_change.append(on_change)
