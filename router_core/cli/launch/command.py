"""`router-core launch`, and the same from Python."""

from __future__ import annotations

import argparse
import logging

from router_core.cli.launch.router_args import RouterArgs
from router_core.cli.launch.settings import config_from, notes_on
from router_core.cli.serve import run_server
from router_core.cli.stop_signals import StopSignals
from router_core.contract.errors import StartupError
from router_core.observability.logs import configure_logging

_log = logging.getLogger(__name__)


def run(parsed: argparse.Namespace) -> int:
    """Run a router with parsed launch arguments until it is told to stop; return the exit code.

    Raises:
        StartupError: With one sentence for each argument that cannot be used.
    """
    try:
        arguments = RouterArgs.from_cli_args(parsed)
    except ValueError as error:
        raise StartupError([str(error)]) from error
    return _launch(arguments, StopSignals())


def launch_router(args: RouterArgs | argparse.Namespace) -> int:
    """Run a router until SIGTERM or SIGINT; return the exit code.

    Args:
        args: The arguments, or a parser's result that holds them.

    Raises:
        StartupError: If an argument cannot be used, or the router cannot start.
        ValueError: If a value of the parser's result has not the form its flag asks for.
    """
    return _launch(args if isinstance(args, RouterArgs) else RouterArgs.from_cli_args(args), None)


def _launch(arguments: RouterArgs, stops: StopSignals | None) -> int:
    config = config_from(arguments)
    configure_logging(config.log_level)
    for note in notes_on(arguments):
        _log.info("%s", note)
    return run_server(config, stops=stops)
