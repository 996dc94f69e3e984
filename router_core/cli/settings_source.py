"""Where the settings come from: they can be read again, and it can be seen that their files have changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from router_core.config import RouterConfig

_Contents = Mapping[Path, bytes | None]


class SettingsSource:
    """Reads the settings, any number of times.

    Files are compared by what is in them: neither a time stamp too coarse to tell nor a link that was turned, as
    Kubernetes does with a mounted ConfigMap, can hide a change, and a file that was only touched has not changed.

    Args:
        load: Reads them; raises `StartupError` if they cannot be used.
        config_file: The file they stand in, if there is one.
    """

    def __init__(self, load: Callable[[], RouterConfig], config_file: Path | None = None) -> None:
        self._load = load
        self._config_file = config_file
        self._keys_file: Path | None = None
        self._read: _Contents = {}
        self._seen: _Contents = {}

    @property
    def files(self) -> tuple[Path, ...]:
        """The config file and the file of API keys, as far as there are any."""
        return tuple(file for file in (self._config_file, self._keys_file) if file is not None)

    def load(self) -> RouterConfig:
        """Return the settings as they are now.

        Raises:
            StartupError: With one sentence for each problem.
        """
        self._read = _contents(self.files)  # first: what changes while they are read is a change yet to come
        config = self._load()
        self._keys_file = config.auth.keys_file
        before = self._read
        self._read = {file: before[file] if file in before else _content(file) for file in self.files}
        return config

    def has_changed(self) -> bool:
        """Return whether a file differs from what was read last, and stands still: two looks in a row found the same.

        An editor or a copy may be half way through it.
        """
        before, self._seen = self._seen, _contents(self.files)
        return self._seen == before and self._seen != self._read


def _contents(files: Iterable[Path]) -> _Contents:
    return {file: _content(file) for file in files}


def _content(file: Path) -> bytes | None:
    """Return what is in a file, None if it cannot be read just now."""
    try:
        return file.read_bytes()
    except OSError:
        return None
