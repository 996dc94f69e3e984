"""The certificates of the settings: read at startup, and again whenever their files change."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from pathlib import Path

from router_core.config import RouterConfig
from router_core.contract.errors import StartupError
from router_core.fleet.background import BackgroundTasks
from router_core.relay.tls import CertificateError, ServerTls, WorkerTls

_log = logging.getLogger(__name__)
_LOOK_S = 10.0
_Stamp = tuple[tuple[int, int, int] | None, ...]


class Certificates:
    """What the router shows, and whom it trusts.

    Attributes:
        server: Towards clients; None without TLS.
        workers: Towards workers.
    """

    def __init__(self, config: RouterConfig) -> None:
        """Read everything once.

        Raises:
            StartupError: With one sentence for each certificate, key or authority that cannot be used.
        """
        problems: list[str] = []
        tls, worker_tls = config.tls, config.worker_tls
        self.server: ServerTls | None = None
        self.workers = WorkerTls(
            ca=worker_tls.ca,
            cert=worker_tls.cert,
            key=worker_tls.key,
            verify=worker_tls.verify,
            server_name=worker_tls.server_name,
        )
        if tls.cert is not None and tls.key is not None:
            try:
                self.server = ServerTls(tls.cert, tls.key, client_ca=tls.client_ca)
            except CertificateError as error:
                problems.append(_sentence("tls", error))
        if self.workers.files:
            try:
                self.workers.renew()
            except CertificateError as error:
                problems.append(_sentence("worker_tls", error))
        if problems:
            raise StartupError(problems)
        if not worker_tls.verify:
            _log.warning("worker_tls.verify is off: whoever answers at a worker's address is taken for it")
        self._watched = self._stamped()
        self._tasks = BackgroundTasks(_log, "renewed certificates are no longer noticed")

    def start(self) -> None:
        """Look for renewed files from now on."""
        self._tasks.start(self._follow())

    async def stop(self) -> None:
        """Look no more."""
        await self._tasks.cancel()

    def renewal(self, config: RouterConfig) -> Callable[[], None]:
        """Read everything anew, from the files that other settings name, and return what takes it.

        Connections made from then on see it. Whether there is TLS towards clients at all stays as it was.

        Raises:
            StartupError: As when it was made.
        """
        fresh = Certificates(config)

        def take() -> None:
            if self.server is not None and fresh.server is not None:
                self.server.take(fresh.server)
            self.workers.take(fresh.workers)
            self._watched = self._stamped()

        return take

    def look(self) -> None:
        """Take what has changed since the last look; what cannot be used leaves the old in place."""
        for index, (section, holder, before) in enumerate(self._watched):
            now = _stamp(holder.files)
            if now == before:
                continue
            self._watched[index] = section, holder, now
            try:
                holder.renew()
            except CertificateError as error:
                _log.error("%s; what was read before stays in use", _sentence(section, error))
            else:
                _log.info("%s: the files have changed and were read again", section)

    def _stamped(self) -> list[tuple[str, ServerTls | WorkerTls, _Stamp]]:
        holders: tuple[tuple[str, ServerTls | WorkerTls | None], ...] = (
            ("tls", self.server),
            ("worker_tls", self.workers),
        )
        return [(name, each, _stamp(each.files)) for name, each in holders if each is not None and each.files]

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            self.look()


def _sentence(section: str, error: CertificateError) -> str:
    return f"{section}.{error.part}: {error}"


def _stamp(files: Iterable[Path]) -> _Stamp:
    return tuple(map(_stamp_of, files))


def _stamp_of(file: Path) -> tuple[int, int, int] | None:
    try:
        status = file.stat()  # follows links: a mounted secret is renewed by turning one
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size
