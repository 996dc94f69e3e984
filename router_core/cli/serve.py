"""A router as a process: started, told to stop by signals, and tuned for its work."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal

import uvloop

from router_core.cli.addresses import ADMIN_HOST, ANYWHERE, LOOPBACK
from router_core.cli.hangups import Hangups
from router_core.cli.open_files import allow_open_files
from router_core.cli.reload import follow_settings, reload_settings
from router_core.cli.router_server import RouterServer
from router_core.cli.settings_source import SettingsSource
from router_core.cli.stop_signals import StopSignals
from router_core.config import RouterConfig
from router_core.contract.errors import StartupError
from router_core.fleet.background import BackgroundTasks
from router_core.observability.logs import configure_logging
from router_core.plugin_host.interpreter_watch import InterpreterWatch

_log = logging.getLogger(__name__)


def run_server(
    config: RouterConfig,
    source: SettingsSource | None = None,
    hangups: Hangups | None = None,
    stops: StopSignals | None = None,
) -> int:
    """Run a router until SIGTERM or SIGINT and return the exit code.

    Args:
        config: The settings to start with.
        source: Reads them again; None if they stand nowhere, but the files that they name are read again.
        hangups: Tells when to; None takes SIGHUP from now on.
        stops: Tells when to end, and the process ends after this; None takes SIGTERM and SIGINT while this runs.

    Raises:
        StartupError: If it cannot start.
    """
    if stops is None:
        own = StopSignals()
        try:
            return run_server(config, source, hangups, own)
        finally:
            own.end(restore=True)
    hangups = hangups or Hangups()
    if source is None:
        source = SettingsSource(lambda: config)
        source.load()
    if config.reload_on_change and not source.files:
        raise StartupError(["reload_on_change: there is no file to watch; give --config FILE, or leave it out"])
    configure_logging(config.log_level, config.log_format)
    allow_open_files(config.limits.max_connections)
    server = RouterServer(config)
    if not stops.has_come:  # a plugin that was just imported may have caught what it raised
        uvloop.run(_serve(server, source, hangups, stops))
    stops.end(restore=False)
    return 0


async def _serve(server: RouterServer, source: SettingsSource, hangups: Hangups, stops: StopSignals) -> None:
    signals: asyncio.Queue[int] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    stops.listen(loop, signals.put_nowait)
    hangups.listen(loop)
    told = asyncio.ensure_future(signals.get())
    if not await _starts(server, told):
        return
    with InterpreterWatch(ends_process=lambda: any(pool.settings.policy.exit_on_hang for pool in server.pools)):
        await _run(server, source, hangups, stops, signals, told)


async def _starts(server: RouterServer, told: asyncio.Future[int]) -> bool:
    """Start a router, unless it is told to stop meanwhile.

    Raises:
        StartupError: If it cannot start.
    """
    starting = asyncio.ensure_future(server.start())
    told.add_done_callback(lambda _: starting.cancel())
    try:
        await starting
    except asyncio.CancelledError:
        if not told.done():
            raise
        _log.info("stopping: told to before it was ready")
        return False
    return True


async def _run(
    server: RouterServer,
    source: SettingsSource,
    hangups: Hangups,
    stops: StopSignals,
    signals: asyncio.Queue[int],
    told: asyncio.Future[int],
) -> None:
    reloads = BackgroundTasks(_log, "the settings are not taken over")
    if server.config.reload_on_change:
        reloads.start(follow_settings(server.reloading, source))
    hangups.act_by(lambda: reloads.start(reload_settings(server.reloading, source)))
    _calm_garbage_collector()
    workers = len(server.registrations.registrations)
    _log.info(
        "listening on %s, policy %s (%s), %d worker%s, metrics at %s",
        server.url,
        server.policy.name,
        server.policy.source,
        workers,
        "" if workers == 1 else "s",
        server.metrics_url,
    )
    if _administers_at(server.config) not in LOOPBACK - ANYWHERE and not server.gate.is_closed:
        _log.warning(
            "whoever reaches %s may add and remove workers, for no API key is set: set auth.api_key or auth.keys_file, "
            "or listen on 127.0.0.1",
            server.admin_url,
        )
    # Ctrl-C is somebody at a terminal, with no balancer to wait for.
    settle_s = server.config.limits.shutdown_settle_s if await told == signal.SIGTERM else 0
    hangups.act_by(lambda: None)
    await reloads.cancel()
    await _stop(server, stops, signals, settle_s)


async def _stop(server: RouterServer, stops: StopSignals, signals: asyncio.Queue[int], settle_s: float) -> None:
    """Be not ready but serve on for `settle_s` seconds, then finish what runs; a second signal ends it at once."""
    is_hurried = False

    def hurry(number: int) -> None:  # noqa: ARG001  # whichever it is
        nonlocal is_hurried
        if not is_hurried:
            is_hurried = True
            _log.info("stopping: a second signal ends the running requests now")
            server.end_grace()

    server.drain()
    if settle_s:
        _log.info("stopping: not ready any more, serving on for %g s until balancers have noticed", settle_s)
        with contextlib.suppress(TimeoutError):
            hurry(await asyncio.wait_for(signals.get(), settle_s))
    if not is_hurried:
        _log.info(
            "stopping: running requests have %g s to finish; a second signal ends them at once",
            server.config.limits.shutdown_grace_s,
        )
    stops.listen(asyncio.get_running_loop(), hurry)
    await server.stop()


def _administers_at(config: RouterConfig) -> str:
    """Return the host on which administration is served."""
    return config.host if config.admin_port is None else config.admin_host or ADMIN_HOST


def _calm_garbage_collector() -> None:
    """Keep what was made at startup out of collections, and collect seldom.

    A request leaves no cycles behind, and a full collection over a large prefix tree holds all traffic up: 50,000
    remembered prompts took 76 to 220 ms.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
